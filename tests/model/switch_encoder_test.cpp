#include "sida/model/switch_encoder.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "sida/runtime/stepping_model.hpp"
#include "tests/model/switch_encoder_fixture.hpp"

namespace sida::testing {
namespace {

static_assert(SteppingModel<SwitchEncoder>);

TEST_F(SwitchEncoderTest, GivesTheSameBytesOnAnyNumberOfThreads) {
  LoadedEncoder loaded(folder_.path());
  std::string const expected = outputs(*loaded.encoder, batch(1), pool_);
  for (std::size_t const threads : {1U, 2U, 3U, 8U}) {
    WorkerPool pool(threads);
    EXPECT_EQ(outputs(*loaded.encoder, batch(1), pool), expected) << threads << " threads";
  }
}

TEST_F(SwitchEncoderTest, GivesTheSameBytesUnderAnyBudget) {
  LoadedEncoder all(folder_.path());
  std::string const expected = outputs(*all.encoder, batch(1), pool_);
  for (std::uint64_t slots = 1; slots <= all.checkpoint.expert_count(); ++slots) {
    LoadedEncoder loaded(folder_.path(), slots);
    ASSERT_EQ(loaded.store->slots(), slots);
    EXPECT_EQ(outputs(*loaded.encoder, batch(1), pool_), expected) << slots << " slots";
  }
}

TEST_F(SwitchEncoderTest, GivesTheSameBytesWhenStepsOfTwoStatesInterleave) {
  LoadedEncoder loaded(folder_.path(), 2);
  SwitchEncoder& encoder = *loaded.encoder;
  std::string const first = outputs(encoder, batch(1), pool_);
  std::string const second = outputs(encoder, batch(2, {90}), pool_);
  SwitchEncoder::State a;
  SwitchEncoder::State b;
  must(encoder.begin(batch(1), a));
  must(encoder.run_to(0, a, pool_));
  must(encoder.begin(batch(2, {90}), b));
  must(encoder.route(0, a, pool_));
  must(encoder.run_to(0, b, pool_));
  must(encoder.route(0, b, pool_));
  must(encoder.run_moe(0, b, pool_, {}));
  must(encoder.run_to(1, b, pool_));
  must(encoder.run_moe(0, a, pool_, {}));
  must(encoder.run_to(1, a, pool_));
  must(encoder.route(1, b, pool_));
  must(encoder.route(1, a, pool_));
  must(encoder.run_moe(1, a, pool_, {}));
  must(encoder.finish(a, pool_));
  must(encoder.run_moe(1, b, pool_, {}));
  must(encoder.finish(b, pool_));
  EXPECT_EQ(output_bytes(a), first);
  EXPECT_EQ(output_bytes(b), second);
}

/// Runs a batch whose routing is what `other` decided, a second and useless rank added when there is room for one.
std::string outputs_by_given_routing(SwitchEncoder& encoder, SwitchEncoder& other, TokenBatch const& batch,
                                     ThreadPool& pool) {
  SwitchEncoder::State state;
  SwitchEncoder::State routed;
  must(encoder.begin(batch, state));
  must(other.begin(batch, routed));
  for (std::uint32_t layer = 0; layer < encoder.moe_layers(); ++layer) {
    must(encoder.run_to(layer, state, pool));
    must(other.run_to(layer, routed, pool));
    must(other.route(layer, routed, pool));
    Routing<> const from = other.routing(routed);
    Routing<> const to = encoder.routing(state);
    for (std::int64_t t = 0; t < from.tokens(); ++t) {
      to.experts(t, 0) = from.experts(t, 0);
      to.weights(t, 0) = from.weights(t, 0);
      if (to.k() > 1 && t % 3 == 0) to.experts(t, 1) = static_cast<std::uint16_t>(t % 2);  // of weight 0
    }
    must(encoder.run_moe(layer, state, pool, {}));
    must(other.run_moe(layer, routed, pool, {}));
  }
  must(encoder.finish(state, pool));
  return output_bytes(state);
}

TEST_F(SwitchEncoderTest, TakesARoutingThatIsGiven) {
  LoadedEncoder whole(folder_.path());
  std::string const expected = outputs(*whole.encoder, batch(1), pool_);
  for (std::int64_t const k : {1, 2}) {
    SwitchOptions options;
    options.routing = SwitchRouting::given;
    options.experts_per_token = k;
    LoadedEncoder given(folder_.path(), 3, options);
    EXPECT_EQ(given.encoder->routing(*std::make_unique<SwitchEncoder::State>()).k(), 0);
    EXPECT_EQ(outputs_by_given_routing(*given.encoder, *whole.encoder, batch(1), pool_), expected) << k;
    EXPECT_LT(given.encoder->dense_bytes(), whole.encoder->dense_bytes()) << "routers are not loaded";
    SwitchEncoder::State state;
    must(given.encoder->begin(batch(1), state));
    must(given.encoder->run_to(0, state, pool_));
    Status const status = given.encoder->route(0, state, pool_);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code(), Errc::invalid_argument);
  }
  SwitchOptions two_by_router;
  two_by_router.experts_per_token = 2;
  auto const refused = SwitchEncoder::load(whole.checkpoint, *whole.store, two_by_router, whole.memory);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::invalid_argument);
}

TEST_F(SwitchEncoderTest, EmbedsApartFromAnyState) {
  LoadedEncoder loaded(folder_.path());
  TokenBatch const tokens = batch(1);
  SwitchEncoder::State state;
  must(loaded.encoder->begin(tokens, state));
  Matrix<float const> const expected = loaded.encoder->embeddings(state);
  std::vector<float> out(static_cast<std::size_t>(tokens.tokens() * config_.d_model));
  must(loaded.encoder->embed(tokens.ids, {out.data(), tokens.tokens(), config_.d_model}));
  EXPECT_TRUE(std::equal(out.begin(), out.end(), expected.data));
  EXPECT_FALSE(loaded.encoder->embed(tokens.ids, {out.data(), tokens.tokens() - 1, config_.d_model}));
  std::vector<std::int32_t> const outside{static_cast<std::int32_t>(config_.vocab_size)};
  EXPECT_FALSE(loaded.encoder->embed(outside, {out.data(), 1, config_.d_model}));
}

TEST_F(SwitchEncoderTest, GivesTheSameBytesInAWindowLayerByLayer) {
  LoadedEncoder loaded(folder_.path(), 4);
  SwitchEncoder& encoder = *loaded.encoder;
  std::vector<TokenBatch> const window = {batch(1), batch(2)};
  std::vector<SwitchEncoder::State> states(2);
  for (std::size_t i = 0; i < 2; ++i) must(encoder.begin(window[i], states[i]));
  for (std::uint32_t layer = 0; layer < encoder.moe_layers(); ++layer) {
    for (auto& state : states) {
      must(encoder.run_to(layer, state, pool_));
      must(encoder.route(layer, state, pool_));
    }
    for (auto& state : states) must(encoder.run_moe(layer, state, pool_, {}));
  }
  for (std::size_t i = 0; i < 2; ++i) {
    must(encoder.finish(states[i], pool_));
    EXPECT_EQ(output_bytes(states[i]), outputs(encoder, window[i], pool_)) << "batch " << i;
  }
}

TEST_F(SwitchEncoderTest, StepsTwoStatesOnTwoThreadsAtOnce) {
  LoadedEncoder loaded(folder_.path(), 3);
  std::vector<std::string> const expected = {outputs(*loaded.encoder, batch(1), pool_),
                                             outputs(*loaded.encoder, batch(2), pool_)};
  std::vector<std::string> got(2);
  std::vector<std::thread> threads;
  for (std::uint32_t i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      WorkerPool pool(2);
      for (int round = 0; round < 3; ++round) got[i] = outputs(*loaded.encoder, batch(i + 1), pool);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(got, expected);
}

TEST_F(SwitchEncoderTest, TakesTheRoutingFromTheCaller) {
  LoadedEncoder loaded(folder_.path());
  SwitchEncoder& encoder = *loaded.encoder;
  SwitchEncoder::State routed;
  SwitchEncoder::State told;
  SwitchEncoder::State untold;
  for (auto* const state : {&routed, &told, &untold}) must(encoder.begin(batch(1), *state));
  for (std::uint32_t layer = 0; layer < encoder.moe_layers(); ++layer) {
    for (auto* const state : {&routed, &told, &untold}) must(encoder.run_to(layer, *state, pool_));
    for (std::int64_t t = 0; t < told.tokens(); ++t) {
      ASSERT_EQ(encoder.routing(told).experts(t, 0), kNoExpert);
      ASSERT_EQ(encoder.routing(told).weights(t, 0), 0);
    }
    must(encoder.route(layer, routed, pool_));
    auto const from = encoder.routing(routed);
    auto const to = encoder.routing(told);
    std::copy_n(from.experts.data, from.tokens(), to.experts.data);
    std::copy_n(from.weights.data, from.tokens(), to.weights.data);
    for (auto* const state : {&routed, &told, &untold}) must(encoder.run_moe(layer, *state, pool_, {}));
  }
  for (auto* const state : {&routed, &told, &untold}) must(encoder.finish(*state, pool_));
  EXPECT_EQ(output_bytes(told), output_bytes(routed));
  EXPECT_NE(output_bytes(untold), output_bytes(routed));
}

TEST_F(SwitchEncoderTest, RejectsExpertsThatThereAreNot) {
  LoadedEncoder loaded(folder_.path());
  SwitchEncoder::State state;
  must(loaded.encoder->begin(batch(1), state));
  must(loaded.encoder->run_to(0, state, pool_));
  loaded.encoder->routing(state).experts(0, 0) = static_cast<std::uint16_t>(config_.num_experts);
  loaded.encoder->routing(state).weights(0, 0) = 1;
  EXPECT_EQ(loaded.encoder->run_moe(0, state, pool_, {}).code(), Errc::invalid_argument);
}

TEST_F(SwitchEncoderTest, RejectsBadBatchesByName) {
  LoadedEncoder loaded(folder_.path());
  SwitchEncoder::State state;
  auto const expect_rejected = [&](TokenBatch next, std::string const& part) {
    next.number = 17;
    Status const status = loaded.encoder->begin(next, state);
    EXPECT_EQ(status.code(), Errc::invalid_argument);
    EXPECT_NE(status.message().find("batch 17"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_EQ(state.tokens(), 0);
    EXPECT_EQ(loaded.encoder->run_to(0, state, pool_).code(), Errc::invalid_argument);
  };
  must(loaded.encoder->begin(batch(1), state));
  expect_rejected({0, {}, {0}}, "no sequences");
  expect_rejected({0, {}, {}}, "no sequences");
  expect_rejected({0, {1, 2}, {0, 1, 1, 2}}, "sequence 1 is empty");
  expect_rejected({0, {1, 2}, {0, 2, 1, 2}}, "sequence 1");
  expect_rejected({0, {1, 2}, {0, 3}}, "3");
  expect_rejected({0, {1, 2}, {1, 2}}, "1");
  expect_rejected({0, {1, 41}, {0, 2}}, "token 1 has id 41");
  expect_rejected({0, {-1, 0}, {0, 2}}, "token 0 has id -1");
}

/// Counts what is asked of it.
class CountingMemory final : public MemoryResource {
 public:
  Result<void*> allocate(std::size_t bytes, std::size_t alignment) override {
    if (fails) return Error(Errc::out_of_memory, "no memory");
    ++allocations;
    asked_bytes += bytes;
    return memory_.allocate(bytes, alignment);
  }
  void deallocate(void* data, std::size_t bytes, std::size_t alignment) noexcept override {
    memory_.deallocate(data, bytes, alignment);
  }
  Tier space() const noexcept override { return Tier::host; }

  int allocations = 0;
  std::size_t asked_bytes = 0;
  bool fails = false;

 private:
  HostMemory memory_;
};

TEST_F(SwitchEncoderTest, AllocatesNothingForABatchNoLargerThanOneBefore) {
  LoadedEncoder loaded(folder_.path());
  CountingMemory memory;
  auto const encoder = value_of(SwitchEncoder::load(loaded.checkpoint, *loaded.store, {}, memory));
  EXPECT_EQ(memory.allocations, 1);
  SwitchEncoder::State state;
  run_batch(*encoder, batch(1), state, pool_);
  EXPECT_EQ(memory.allocations, 3);
  run_batch(*encoder, batch(2), state, pool_);
  run_batch(*encoder, batch(3, {5}), state, pool_);
  EXPECT_EQ(memory.allocations, 3);
}

TEST_F(SwitchEncoderTest, ReportsThatMemoryRanOut) {
  LoadedEncoder loaded(folder_.path());
  CountingMemory memory;
  memory.fails = true;
  auto const refused = SwitchEncoder::load(loaded.checkpoint, *loaded.store, {}, memory);
  EXPECT_EQ(refused.code(), Errc::out_of_memory);
  EXPECT_NE(refused.message().find(folder_ / "model.safetensors"), std::string::npos) << refused.message();
  memory.fails = false;
  auto const encoder = value_of(SwitchEncoder::load(loaded.checkpoint, *loaded.store, {}, memory));
  SwitchEncoder::State state;
  memory.fails = true;
  EXPECT_EQ(encoder->begin(batch(1), state).code(), Errc::out_of_memory);
  EXPECT_EQ(state.tokens(), 0);
  memory.fails = false;
  must(encoder->begin(batch(1), state));
  memory.fails = true;
  EXPECT_EQ(encoder->run_to(0, state, pool_).code(), Errc::out_of_memory);
  memory.fails = false;
  EXPECT_EQ(encoder->run_to(0, state, pool_).code(), Errc::invalid_argument);  // there is no batch
  run_batch(*encoder, batch(1), state, pool_);
  EXPECT_EQ(output_bytes(state), outputs(*loaded.encoder, batch(1), pool_));
}

TEST_F(SwitchEncoderTest, KeepsOneBiasPerBucketHoweverFarPositionsReach) {
  config_.relative_attention_max_distance = std::int64_t{1} << 20;
  TempDir folder;
  write_checkpoint(folder, config_, random_tensors(config_));
  LoadedEncoder loaded(folder.path());
  CountingMemory memory;
  auto const encoder = value_of(SwitchEncoder::load(loaded.checkpoint, *loaded.store, {}, memory));
  EXPECT_LT(encoder->dense_bytes(), loaded.checkpoint.dense_bytes() + (std::size_t{5} << 20));
  EXPECT_EQ(memory.asked_bytes, encoder->dense_bytes()) << "all from the memory that is lent";
}

TEST_F(SwitchEncoderTest, RejectsAStoreOfOtherExperts) {
  LoadedEncoder loaded(folder_.path());
  config_.num_experts = 5;
  TempDir folder;
  write_checkpoint(folder, config_, random_tensors(config_, Dtype::bf16, Dtype::bf16));
  LoadedEncoder other(folder.path());
  HostMemory memory;
  EXPECT_EQ(SwitchEncoder::load(loaded.checkpoint, *other.store, {}, memory).code(), Errc::invalid_argument);
}

TEST_F(SwitchEncoderTest, TakesAnotherCapacity) {
  LoadedEncoder as_configured(folder_.path());
  SwitchOptions options;
  options.expert_capacity = 0;
  LoadedEncoder none(folder_.path(), 0, options);
  options.capacity_rule = CapacityRule::none;
  LoadedEncoder unlimited(folder_.path(), 0, options);
  options = {};
  options.expert_capacity = 1000;
  LoadedEncoder large(folder_.path(), 0, options);
  std::string const base = outputs(*as_configured.encoder, batch(1), pool_);
  EXPECT_NE(outputs(*none.encoder, batch(1), pool_), base);
  EXPECT_NE(outputs(*large.encoder, batch(1), pool_), base);
  EXPECT_EQ(outputs(*large.encoder, batch(1), pool_), outputs(*unlimited.encoder, batch(1), pool_));
  options.expert_capacity = -1;
  HostMemory memory;
  EXPECT_EQ(SwitchEncoder::load(large.checkpoint, *large.store, options, memory).code(), Errc::invalid_argument);
}

TEST_F(SwitchEncoderTest, KeepsDenseWeightsInTheirOwnType) {
  LoadedEncoder loaded(folder_.path());
  std::size_t const bucket_table = sizeof(float) * (20 + 1);
  // Vectors are widened, and each tensor starts at a multiple of 64 bytes.
  EXPECT_LE(loaded.encoder->dense_bytes(), loaded.checkpoint.dense_bytes() + bucket_table + 64UL * 60 + 2UL * 26 * 14);
  EXPECT_EQ(loaded.encoder->config(), config_);
  EXPECT_TRUE(loaded.encoder->has_head());
  EXPECT_EQ(loaded.encoder->moe_layers(), 2U);
}

}  // namespace
}  // namespace sida::testing
