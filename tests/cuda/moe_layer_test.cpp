#include "sida/cuda/moe_layer.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "sida/cuda/device_tier.hpp"
#include "sida/layer/expert_ffn.hpp"
#include "tests/cuda/device_fixture.hpp"
#include "tests/layer/random_experts.hpp"

namespace sida {
namespace {

using test::take;

double rounded(double value, Dtype dtype) {
  auto const single = static_cast<float>(value);
  if (dtype == Dtype::bf16) return static_cast<double>(to_float(to_bf16(single)));
  if (dtype == Dtype::f16) return static_cast<double>(to_float(to_fp16(single)));
  return static_cast<double>(single);
}

double weight_at(std::byte const* matrix, std::int64_t index, Dtype dtype) {
  if (dtype == Dtype::f32) {
    float value;
    std::memcpy(&value, matrix + index * 4, 4);
    return static_cast<double>(value);
  }
  std::uint16_t bits;
  std::memcpy(&bits, matrix + index * 2, 2);
  return static_cast<double>(dtype == Dtype::bf16 ? to_float(bf16{bits}) : to_float(fp16{bits}));
}

/// One expert on one token in double, with the device's rounding points: x and h in the weights' type.
std::vector<double> reference_ffn(ExpertLayout const& layout, std::byte const* record, float const* x) {
  auto const& shape = layout.shape;
  auto const product = [&](std::size_t matrix, std::vector<double> const& from, std::int64_t outputs) {
    auto const k = static_cast<std::int64_t>(from.size());
    std::vector<double> to(static_cast<std::size_t>(outputs));
    for (std::int64_t o = 0; o < outputs; ++o) {
      for (std::int64_t i = 0; i < k; ++i) {
        to[static_cast<std::size_t>(o)] +=
            weight_at(record + matrix, o * k + i, shape.dtype) * from[static_cast<std::size_t>(i)];
      }
    }
    return to;
  };
  std::vector<double> in;
  for (std::int64_t c = 0; c < shape.d_model; ++c) in.push_back(rounded(static_cast<double>(x[c]), shape.dtype));
  std::vector<double> h = product(layout.in, in, shape.d_ff);
  std::vector<double> const gate =
      shape.kind == FfnKind::swiglu ? product(layout.gate, in, shape.d_ff) : std::vector<double>(h.size());
  for (std::size_t i = 0; i < h.size(); ++i) {
    double value = std::max(h[i], 0.0);
    if (shape.kind == FfnKind::gelu) value = 0.5 * h[i] * (1 + std::erf(h[i] / std::sqrt(2.0)));
    if (shape.kind == FfnKind::swiglu) value = gate[i] / (1 + std::exp(-gate[i])) * h[i];
    h[i] = rounded(value, shape.dtype);
  }
  return product(layout.out, h, shape.d_model);
}

/// A layer, its experts in memory, and one batch with its routing.
struct World {
  MoeShape shape;
  Dtype dtype;
  std::int64_t tokens;
  std::shared_ptr<test::MemorySource> source;
  std::vector<float> x;  // [tokens, d_model]
  HostRouting owned;

  World(MoeShape const& shape_, Dtype dtype_, std::vector<std::int64_t> const& tokens_of_expert, unsigned seed = 5)
      : shape(shape_), dtype(dtype_) {
    std::mt19937 random(seed);
    std::vector<std::vector<std::byte>> records;
    for (std::uint32_t e = 0; e < shape.experts; ++e) records.push_back(test::random_record(layout(), random));
    source = std::make_shared<test::MemorySource>(std::move(records));
    // Tokens of each expert at rank 0, mixed; the other ranks at random, all different.
    std::vector<std::uint16_t> first;
    for (std::size_t e = 0; e < tokens_of_expert.size(); ++e) {
      first.insert(first.end(), static_cast<std::size_t>(tokens_of_expert[e]),
                   e == shape.experts ? kNoExpert : static_cast<std::uint16_t>(e));
    }
    std::shuffle(first.begin(), first.end(), random);
    tokens = static_cast<std::int64_t>(first.size());
    x = test::random_floats(tokens * shape.d_model, random);
    owned.resize(tokens, shape.k);
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t r = 0; r < shape.k; ++r) {
        auto const other = static_cast<std::uint16_t>((first[static_cast<std::size_t>(t)] + r) % shape.experts);
        routing().experts(t, r) = r == 0 ? first[static_cast<std::size_t>(t)] : other;
        routing().weights(t, r) = static_cast<float>(random() % 1000) / 1000;
      }
    }
  }
  ExpertLayout layout() const { return take(ExpertLayout::of({shape.kind, dtype, shape.d_model, shape.d_ff})); }
  Routing<> routing() { return owned.view(); }

  std::vector<double> reference() {
    std::vector<double> y(x.size());
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t r = 0; r < shape.k; ++r) {
        std::uint16_t const expert = routing().experts(t, r);
        float const* const token = x.data() + t * shape.d_model;
        auto const out = expert == kNoExpert ? std::vector<double>(token, token + shape.d_model)
                                             : reference_ffn(layout(), source->pointers()[expert], token);
        for (std::int64_t c = 0; c < shape.d_model; ++c) {
          y[static_cast<std::size_t>(t * shape.d_model + c)] +=
              static_cast<double>(routing().weights(t, r)) * out[static_cast<std::size_t>(c)];
        }
      }
    }
    return y;
  }
};

/// With the chain of stores.
struct Engine : test::Lent {
  Buffer gemm_workspace = take(Buffer::allocate(device, cuda::Gemm::kWorkspaceBytes, 256));
  cuda::Gemm gemm{blas.get(), gemm_workspace.bytes()};
  std::unique_ptr<ExpertStore> host_store;
  std::unique_ptr<ExpertStore> store;

  Engine(World const& world, std::uint32_t slots, std::uint32_t host_slots = 64) {
    std::size_t const slot = slot_bytes_for(world.layout().size_bytes);
    host_store = take(
        ExpertStore::open(*world.source, make_host_tier(world.source, pinned, 2), {.budget_bytes = host_slots * slot}));
    store = take(ExpertStore::open(*world.source, cuda::make_device_tier(*host_store, device, {.poison = true}),
                                   {.budget_bytes = slots * slot}));
  }

  template <class T>
  Result<std::vector<float>> apply(World& world, std::optional<std::vector<float>> const& added_to = {}) {
    cuda::MoeLayer<T, TopKSoftmaxRouter> layer(
        world.shape, *store, TopKSoftmaxRouter(world.shape.k, TopKSoftmaxRouter::Weights::as_softmax));
    test::DeviceBytes workspace(layer.workspace_bytes(world.tokens));
    Buffer lent = take(Buffer::allocate(pinned, layer.pinned_bytes(world.tokens)));
    test::DeviceFloats x(world.x, world.shape.d_model);
    test::DeviceFloats y(world.tokens, world.shape.d_model);
    if (added_to) y = test::DeviceFloats(*added_to, world.shape.d_model);
    Status const status =
        layer.apply(x.view(), world.routing(), y.view(), added_to.has_value(),
                    {.gemm = gemm, .stream = stream.get(), .workspace = workspace.bytes(), .pinned = lent.bytes()});
    std::vector<float> values = y.values();
    if (!status) return status.error();
    return values;
  }
  Result<std::vector<float>> apply(World& world) {
    switch (world.dtype) {
      case Dtype::f32: return apply<float>(world);
      case Dtype::f16: return apply<fp16>(world);
      case Dtype::bf16: break;
    }
    return apply<bf16>(world);
  }
};

double distance(std::vector<float> const& got, std::vector<double> const& expected) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    error += (static_cast<double>(got[i]) - expected[i]) * (static_cast<double>(got[i]) - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

/// Rounding differs where a sum lands on the other side of a tie: rarely, and by one unit of the type.
double tolerance(Dtype dtype) {
  if (dtype == Dtype::f32) return 2e-6;
  return dtype == Dtype::bf16 ? 4e-3 : 5e-4;
}

class CudaMoeLayer : public test::DeviceTest {};

TEST_F(CudaMoeLayer, IsTheReferenceForAllKindsTypesAndShapes) {
  std::vector<std::int64_t> const groups{1, 2, 3, 5, 8, 9, 40, 0, 17};  // the last: tokens without an expert
  for (FfnKind const kind : {FfnKind::relu, FfnKind::gelu, FfnKind::swiglu}) {
    for (Dtype const dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
      for (auto const& [d_model, d_ff] :
           {std::pair<std::int64_t, std::int64_t>{64, 128}, {96, 40}, {37, 53}, {264, 200}}) {
        if (test::kIsSanitized && d_model > 64) continue;
        SCOPED_TRACE(std::string(to_string(kind)) + " " + std::string(to_string(dtype)) + " " +
                     std::to_string(d_model) + "x" + std::to_string(d_ff));
        World world({.experts = 8, .k = 1, .kind = kind, .d_model = d_model, .d_ff = d_ff}, dtype, groups);
        Engine engine(world, 8);
        auto const y = engine.apply(world);
        ASSERT_TRUE(y) << y.message();
        EXPECT_LE(distance(*y, world.reference()), tolerance(dtype));
      }
    }
  }
}

TEST_F(CudaMoeLayer, ManyTokensOfOneExpert) {
  for (Dtype const dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
    World world({.experts = 3, .k = 1, .kind = FfnKind::relu, .d_model = 128, .d_ff = 64}, dtype, {300, 0, 1});
    Engine engine(world, 2);
    EXPECT_LE(distance(take(engine.apply(world)), world.reference()), tolerance(dtype));
  }
}

TEST_F(CudaMoeLayer, TopOneToTopEight) {
  for (std::int64_t const k : {1, 2, 3, 8}) {
    World world({.experts = 12, .k = k, .kind = FfnKind::swiglu, .d_model = 64, .d_ff = 48}, Dtype::bf16,
                {3, 0, 1, 4, 11, 0, 2, 1, 9, 3, 1, 1});
    Engine engine(world, 12);
    EXPECT_LE(distance(take(engine.apply(world)), world.reference()), tolerance(Dtype::bf16)) << k;
  }
}

TEST_F(CudaMoeLayer, BytesDoNotDependOnResidency) {
  for (Dtype const dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
    World world({.experts = 16, .k = 2, .kind = FfnKind::gelu, .d_model = 72, .d_ff = 104}, dtype,
                {4, 0, 1, 20, 11, 0, 2, 1, 9, 3, 1, 1, 8, 7, 30, 5});
    std::optional<std::vector<float>> first;
    using Slots = std::vector<std::uint32_t>;
    for (std::uint32_t const slots : test::kIsSanitized ? Slots{1, 5} : Slots{1, 2, 5, 16}) {
      for (std::uint32_t const host_slots : {1U, 16U}) {
        Engine engine(world, slots, host_slots);
        for (int repeat = 0; repeat < 2; ++repeat) {
          auto const y = take(engine.apply(world));
          if (!first) first = y;
          EXPECT_EQ(std::memcmp(y.data(), first->data(), y.size() * sizeof(float)), 0) << slots << " of " << host_slots;
        }
      }
    }
  }
}

TEST_F(CudaMoeLayer, MayAddToWhatIsThere) {
  World world({.experts = 4, .k = 1, .kind = FfnKind::relu, .d_model = 64, .d_ff = 64}, Dtype::f32, {3, 1, 12, 0});
  Engine engine(world, 4);
  std::mt19937 random(3);
  auto const before = test::random_floats(world.tokens * 64, random);
  auto const alone = take(engine.apply<float>(world));
  auto const sum = take(engine.apply<float>(world, before));
  for (std::size_t i = 0; i < sum.size(); ++i) EXPECT_EQ(sum[i], before[i] + alone[i]);
}

TEST_F(CudaMoeLayer, AFailedReadIsAnErrorAndARetrySucceeds) {
  World world({.experts = 6, .k = 1, .kind = FfnKind::relu, .d_model = 64, .d_ff = 64}, Dtype::bf16,
              {3, 1, 12, 2, 2, 9});
  Engine engine(world, 3);
  world.source->fail(4);
  EXPECT_EQ(engine.apply(world).code(), Errc::io);
  world.source->fail(-1);
  EXPECT_LE(distance(take(engine.apply(world)), world.reference()), tolerance(Dtype::bf16));
}

TEST_F(CudaMoeLayer, RefusesWhatDoesNotFit) {
  World world({.experts = 4, .k = 1, .kind = FfnKind::relu, .d_model = 64, .d_ff = 64}, Dtype::f32, {3, 1, 12, 0});
  Engine engine(world, 4);
  world.routing().experts(0, 0) = 4;
  EXPECT_EQ(engine.apply(world).code(), Errc::invalid_argument);
  world.routing().experts(0, 0) = 0;
  world.shape.d_ff = 65;  // larger records than the store's
  EXPECT_EQ(engine.apply(world).code(), Errc::invalid_argument);
}

}  // namespace
}  // namespace sida
