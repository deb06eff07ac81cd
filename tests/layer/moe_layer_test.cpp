#include "sida/layer/moe_layer.hpp"

#include <cstring>
#include <functional>
#include <limits>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sida/layer/expert_ffn.hpp"
#include "tests/layer/random_experts.hpp"

namespace sida {
namespace {

using testing::HasSubstr;

/// An engine's own router: needs nothing of sida but the concept.
struct OwnRouter {
  std::int64_t k() const noexcept { return 2; }
  Status route(Matrix<float const>, TokenLayout const&, Routing<>) const { return {}; }
};
static_assert(Router<OwnRouter>);

/// A layer, its experts in memory, and one batch with its routing.
struct World {
  MoeShape shape;
  Dtype dtype;
  std::shared_ptr<test::MemorySource> source;
  std::int64_t tokens;
  std::vector<float> x;  // [tokens, d_model]
  HostRouting owned;
  WorkerPool pool{2};

  World(MoeShape const& shape_, Dtype dtype_, std::int64_t tokens_, unsigned seed = 5)
      : shape(shape_), dtype(dtype_), tokens(tokens_) {
    std::mt19937 random(seed);
    std::vector<std::vector<std::byte>> records;
    for (std::uint32_t e = 0; e < shape.experts; ++e) records.push_back(test::random_record(layout(), random));
    source = std::make_shared<test::MemorySource>(std::move(records));
    x = test::random_floats(tokens * shape.d_model, random);
    owned.resize(tokens, shape.k);
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t r = 0; r < shape.k; ++r) {
        routing().experts(t, r) = static_cast<std::uint16_t>(random() % shape.experts);
        routing().weights(t, r) = static_cast<float>(random() % 1000) / 1000;
      }
    }
  }
  ExpertLayout layout() const { return *ExpertLayout::of({shape.kind, dtype, shape.d_model, shape.d_ff}); }
  Routing<> routing() { return owned.view(); }
  Matrix<float const> input() const { return {x.data(), tokens, shape.d_model}; }

  std::unique_ptr<ExpertStore> open_store(std::uint32_t slots) const {
    static HostMemory memory;
    auto store = ExpertStore::open(*source, make_host_tier(source, memory, 2),
                                   {.budget_bytes = slots * slot_bytes_for(layout().size_bytes)});
    EXPECT_TRUE(store) << store.message();
    return *std::move(store);
  }

  std::vector<float> over_arrays(CpuIsa isa = best_cpu_isa()) {
    test::AlignedBytes workspace(moe_workspace_bytes(shape, tokens));
    std::vector<float> y(x.size(), std::numeric_limits<float>::quiet_NaN());
    Status const status = moe_over_arrays(shape, dtype, isa, source->pointers(), input(), routing(),
                                          {y.data(), tokens, shape.d_model}, {pool, workspace.bytes()});
    EXPECT_TRUE(status) << status.message();
    EXPECT_TRUE(workspace.guard_is_intact());
    return y;
  }

  template <class T>
  std::vector<float> over_store(ExpertStore& store, ThreadPool& threads) {
    MoeLayer<T, Tier::host, OwnRouter> layer(shape, store, {});
    test::AlignedBytes workspace(layer.workspace_bytes(tokens));
    std::vector<float> y(x.size(), std::numeric_limits<float>::quiet_NaN());
    Status const status =
        layer.apply(input(), routing(), {y.data(), tokens, shape.d_model}, {threads, workspace.bytes()});
    EXPECT_TRUE(status) << status.message();
    EXPECT_TRUE(workspace.guard_is_intact());
    return y;
  }

  /// Token by token, by the reference.
  std::vector<double> reference() {
    std::vector<double> y(x.size(), 0.0);
    std::vector<float> one(static_cast<std::size_t>(shape.d_model));
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t r = 0; r < shape.k; ++r) {
        std::uint16_t const expert = routing().experts(t, r);
        Matrix<float const> const token = input().row_range(t, 1);
        if (expert == kNoExpert) {
          std::copy_n(token.data, shape.d_model, one.begin());
        } else {
          reference_expert_ffn(layout(), source->pointers()[expert], token, {one.data(), 1, shape.d_model});
        }
        for (std::size_t c = 0; c < one.size(); ++c) {
          y[static_cast<std::size_t>(t * shape.d_model) + c] += double{routing().weights(t, r)} * double{one[c]};
        }
      }
    }
    return y;
  }
};

MoeShape small_shape(FfnKind kind = FfnKind::relu) {
  return {.layer = 0, .experts = 6, .k = 2, .kind = kind, .d_model = 40, .d_ff = 72};
}

bool same_bytes(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void expect_near(std::vector<float> const& y, std::vector<double> const& reference, double tolerance = 1e-5) {
  double largest = 0;
  for (double const value : reference) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], reference[i], tolerance * largest) << "value " << i;
}

TEST(MoeLayer, SumsWeightedExpertsAsTheReferenceDoes) {
  for (FfnKind const kind : {FfnKind::relu, FfnKind::gelu, FfnKind::swiglu}) {
    for (Dtype const dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
      World world(small_shape(kind), dtype, 23);
      for (CpuIsa const isa : runnable_cpu_isas()) {
        bool const rounds = PackedRows{isa, dtype, 1}.is_needed();  // each input of a product by up to 2^-9
        expect_near(world.over_arrays(isa), world.reference(), rounds ? 4 * 0x1p-9 : 1e-5);
      }
    }
  }
}

template <class T>
class MoeLayerOf : public testing::Test {};
using Elements = testing::Types<float, bf16, fp16>;
TYPED_TEST_SUITE(MoeLayerOf, Elements);

TYPED_TEST(MoeLayerOf, GivesTheSameBytesForAnyBudgetAndThreads) {
  for (FfnKind const kind : {FfnKind::relu, FfnKind::gelu, FfnKind::swiglu}) {
    World world(small_shape(kind), dtype_of<TypeParam>, 31);
    world.routing().experts(4, 0) = kNoExpert;
    world.routing().experts(4, 1) = kNoExpert;
    std::vector<float> const expected = world.over_arrays();
    for (std::uint32_t const slots : {1U, 2U, 6U}) {
      auto const store = world.open_store(slots);
      for (std::size_t const threads : {1U, 2U, 3U}) {
        WorkerPool pool(threads);
        EXPECT_TRUE(same_bytes(world.over_store<TypeParam>(*store, pool), expected))
            << slots << " slots, " << threads << " threads";
      }
    }
  }
}

TEST(MoeLayer, GivesTheSameBytesForOneBatchOfRowsAndForSeveral) {
  // More rows than are computed at once, nearly all of one expert.
  World world({.experts = 3, .k = 1, .d_model = 16, .d_ff = 4096}, Dtype::f32, 2500);
  for (std::int64_t t = 0; t < world.tokens; ++t)
    world.routing().experts(t, 0) = static_cast<std::uint16_t>(t % 50 == 0 ? t / 50 % 3 : 1);
  std::vector<float> const whole = world.over_arrays();
  world.tokens = 1000;
  world.x.resize(16000);
  world.owned.resize(1000, 1);  // keeps the first rows
  std::vector<float> const part = world.over_arrays();
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin()));
}

TEST(MoeLayer, PassesDroppedTokensThroughAndZerosTheRest) {
  World world({.experts = 2, .k = 1, .d_model = 5, .d_ff = 9}, Dtype::f32, 3);
  world.routing().experts(0, 0) = kNoExpert;
  world.routing().weights(0, 0) = 0.25F;
  world.routing().experts(2, 0) = kNoExpert;
  world.routing().weights(2, 0) = 0;
  world.x[10] = std::numeric_limits<float>::infinity();  // must not become 0 * infinity
  std::vector<float> const y = world.over_arrays();
  for (std::size_t c = 0; c < 5; ++c) {
    EXPECT_EQ(y[c], 0.25F * world.x[c]);
    EXPECT_EQ(y[10 + c], 0.0F);
  }
}

TEST(MoeLayer, WorksWithoutAnyExpertAndWithoutTokens) {
  World world(small_shape(), Dtype::f32, 4);
  for (std::int64_t t = 0; t < 4; ++t) {
    for (std::int64_t r = 0; r < 2; ++r) {
      world.routing().experts(t, r) = kNoExpert;
      world.routing().weights(t, r) = 0;
    }
  }
  auto const store = world.open_store(1);
  EXPECT_EQ(world.over_store<float>(*store, world.pool), std::vector<float>(world.x.size(), 0.0F));
  World none(small_shape(), Dtype::f32, 0);
  EXPECT_TRUE(none.over_store<float>(*store, none.pool).empty());
  EXPECT_EQ(store->stats().loads, 0U);
}

TEST(MoeLayer, HonoursStrides) {
  World world(small_shape(), Dtype::f32, 7);
  std::vector<float> const expected = world.over_arrays();
  std::int64_t const d_model = world.shape.d_model, stride = d_model + 3;
  std::vector<float> x(static_cast<std::size_t>(7 * stride), 1e30F), y(x.size(), -1.0F);
  for (std::int64_t t = 0; t < 7; ++t) std::copy_n(&world.x[t * d_model], d_model, &x[t * stride]);
  test::AlignedBytes workspace(moe_workspace_bytes(world.shape, 7));
  ASSERT_TRUE(moe_over_arrays(world.shape, Dtype::f32, best_cpu_isa(), world.source->pointers(),
                              {x.data(), 7, d_model, stride}, world.routing(), {y.data(), 7, d_model, stride},
                              {world.pool, workspace.bytes()}));
  for (std::int64_t t = 0; t < 7; ++t) {
    EXPECT_TRUE(std::equal(&y[t * stride], &y[t * stride] + d_model, &expected[t * d_model]));
    EXPECT_EQ(y[t * stride + d_model], -1.0F);
  }
}

TEST(MoeLayer, ReportsAFailedLoadAndWorksAgainAfterwards) {
  World world(small_shape(), Dtype::f32, 20);
  std::vector<float> const expected = world.over_arrays();
  auto const store = world.open_store(2);
  world.source->fail(3);
  MoeLayer<float, Tier::host, OwnRouter> layer(world.shape, *store, {});
  test::AlignedBytes workspace(layer.workspace_bytes(20));
  std::vector<float> y(world.x.size());
  Matrix<float> const out(y.data(), 20, world.shape.d_model);
  Status const status = layer.apply(world.input(), world.routing(), out, {world.pool, workspace.bytes()});
  EXPECT_EQ(status.code(), Errc::io);
  EXPECT_THAT(status.message(), HasSubstr("expert 3"));
  world.source->fail(-1);
  EXPECT_TRUE(same_bytes(world.over_store<float>(*store, world.pool), expected));
}

/// Applies a layer to arguments that one thing is wrong with.
class MoeLayerArguments : public testing::Test {
 protected:
  struct Call {
    MoeShape shape;
    Matrix<float const> x;
    Routing<> routing;
    Matrix<float> y;
    std::span<std::byte> workspace;
    CpuIsa isa;
  };
  Status apply(std::function<void(Call&)> const& spoil) {
    Call call = {world_.shape,       world_.input(),     world_.routing(),
                 {y_.data(), 8, 40}, workspace_.bytes(), best_cpu_isa()};
    spoil(call);
    MoeLayer<float, Tier::host, OwnRouter> layer(call.shape, *store_, {}, call.isa);
    return layer.apply(call.x, call.routing, call.y, {pool_, call.workspace});
  }
  Errc code(std::function<void(Call&)> const& spoil) { return apply(spoil).code(); }

  World world_{small_shape(), Dtype::f32, 8};
  std::unique_ptr<ExpertStore> store_ = world_.open_store(2);
  std::vector<float> y_ = std::vector<float>(320);  // [8, 40]
  test::AlignedBytes workspace_{moe_workspace_bytes(small_shape(), 8)};
  InlinePool pool_;
};

TEST_F(MoeLayerArguments, AreAcceptedWhenRight) {
  EXPECT_EQ(code([](Call&) {}), Errc::ok);
}

TEST_F(MoeLayerArguments, MustFitEachOther) {
  EXPECT_EQ(code([](Call& c) { c.x.rows = 7; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Call& c) { c.x.cols = 39; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Call& c) { c.x.stride = 39; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Call& c) { c.x.data = nullptr; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Call& c) { c.x.rows = -1; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Call& c) { c.y.rows = 7; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Call& c) { c.y.cols = 41; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Call& c) { c.routing.experts.cols = 1; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Call& c) { c.routing.weights.rows = 9; }), Errc::invalid_argument);
}

TEST_F(MoeLayerArguments, MustNameExpertsOfTheLayer) {
  world_.routing().experts(5, 1) = 6;
  Status const status = apply([](Call&) {});
  EXPECT_EQ(status.code(), Errc::invalid_argument);
  EXPECT_THAT(status.message(), HasSubstr("token 5 goes to expert 6 of 6"));
}

TEST_F(MoeLayerArguments, MustBringAnAlignedWorkspaceOfTheAskedSize) {
  Status const status = apply([](Call& c) { c.workspace = c.workspace.first(c.workspace.size() - 1); });
  EXPECT_EQ(status.code(), Errc::invalid_argument);
  EXPECT_THAT(status.message(), HasSubstr(std::to_string(moe_workspace_bytes(small_shape(), 8))));
  EXPECT_EQ(code([](Call& c) { c.workspace = c.workspace.subspan(4); }), Errc::invalid_argument);
  EXPECT_EQ(code([](Call& c) { c.workspace = {}; }), Errc::invalid_argument);
}

TEST_F(MoeLayerArguments, MustBePossible) {
  EXPECT_EQ(code([](Call& c) { c.shape.d_ff = 0; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Call& c) { c.shape.experts = 1; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Call& c) { c.isa = static_cast<CpuIsa>(99); }), Errc::unsupported);
}

TEST_F(MoeLayerArguments, MustFitTheStore) {
  test::AlignedBytes large(1 << 20);
  Status const larger = apply([&](Call& c) {
    c.shape.d_ff = 80;
    c.workspace = large.bytes();
  });
  EXPECT_EQ(larger.code(), Errc::invalid_argument);
  EXPECT_THAT(larger.message(), HasSubstr("records"));
  EXPECT_EQ(code([](Call& c) { c.shape.layer = 1; }), Errc::invalid_argument);
}

TEST(MoeLayer, SaysWhatItCannotImplement) {
  using Layer = MoeLayer<bf16, Tier::host, SwitchRouter>;
  MoeShape shape = {.experts = 8, .k = 1, .d_model = 4, .d_ff = 4};
  EXPECT_TRUE(Layer::can_implement(shape));
  shape.k = 9;
  EXPECT_EQ(Layer::can_implement(shape).code(), Errc::invalid_argument);
  shape = {.experts = 65536, .k = 1, .d_model = 4, .d_ff = 4};
  EXPECT_EQ(Layer::can_implement(shape).code(), Errc::invalid_argument);
  shape = {.experts = 8, .k = 1, .d_model = 0, .d_ff = 4};
  EXPECT_EQ(Layer::can_implement(shape).code(), Errc::invalid_argument);
  EXPECT_EQ(moe_workspace_bytes(shape, 3), 0U);
}

TEST(MoeLayer, OnADeviceReportsThatThereIsNoCuda) {
  World world(small_shape(), Dtype::f32, 1);
  auto const store = world.open_store(1);
  using Layer = MoeLayer<float, Tier::device, SwitchRouter>;
  Layer layer(world.shape, *store, SwitchRouter(CapacityRule::none, 0));
  EXPECT_EQ(Layer::can_implement(world.shape).code(), Errc::device);
  EXPECT_EQ(layer.apply({}, {}, {}, {world.pool, {}}).code(), Errc::device);
  EXPECT_EQ(layer.route({}, {}, {}).code(), Errc::device);
}

TEST(MoeLayer, RoutesByItsRouter) {
  World world({.experts = 2, .k = 1, .d_model = 4, .d_ff = 4}, Dtype::f32, 1);
  auto const store = world.open_store(1);
  MoeLayer<float, Tier::host, SwitchRouter> layer(world.shape, *store, SwitchRouter(CapacityRule::none, 0));
  float const logits[] = {0, 9};
  std::uint32_t const offsets[] = {0, 1};
  ASSERT_TRUE(layer.route({logits, 1, 2}, {offsets}, world.routing()));
  EXPECT_EQ(world.routing().experts(0, 0), 1);
}

}  // namespace
}  // namespace sida
