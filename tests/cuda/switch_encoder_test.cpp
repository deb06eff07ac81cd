#include "sida/cuda/switch_encoder.hpp"

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/kernels.hpp"
#include "sida/cuda/device_tier.hpp"
#include "tests/cuda/device_encoder.hpp"
#include "tests/cuda/device_fixture.hpp"
#include "tests/cuda/pool_memory.hpp"
#include "tests/model/encoder_fixture.hpp"
#include "tests/model/random_checkpoint.hpp"

namespace sida {
namespace {

using test::kIsOnHost;
using testing::DeviceEncoder;
using testing::must;

double distance(Matrix<float const> a, Matrix<float const> b) {
  double error = 0, norm = 0;
  for (std::int64_t r = 0; r < a.rows; ++r) {
    for (std::int64_t c = 0; c < a.cols; ++c) {
      auto const difference = static_cast<double>(a(r, c)) - static_cast<double>(b(r, c));
      error += difference * difference;
      norm += static_cast<double>(b(r, c)) * static_cast<double>(b(r, c));
    }
  }
  return std::sqrt(error / norm);
}

class CudaSwitchEncoder : public test::DeviceTest {
 protected:
  /// Runs one batch on both, with the CPU's routing compared at each layer.
  void compare(SwitchConfig const& config, Dtype dense, Dtype experts, SwitchOptions const& options, double tolerance) {
    testing::TempDir const folder;
    testing::write_checkpoint(folder, config, testing::random_tensors(config, dense, experts));
    testing::LoadedEncoder cpu(folder.path(), 0, options);
    DeviceEncoder gpu(folder.path(), {.slots = 2}, options);
    TokenBatch const batch = testing::random_batch(
        kIsOnHost ? std::vector<std::size_t>{3, 1, 33} : std::vector<std::size_t>{7, 1, 66, 20, 129}, config.vocab_size,
        3);
    SwitchEncoder::State expected, got;
    must(cpu.encoder->begin(batch, expected));
    must(gpu.encoder->begin(batch, got));
    EXPECT_LE(distance(gpu.encoder->embeddings(got), cpu.encoder->embeddings(expected)), 0);
    for (std::uint32_t layer = 0; layer < cpu.encoder->moe_layers(); ++layer) {
      for (auto const& [encoder, state] : {std::pair(cpu.encoder.get(), &expected), {gpu.encoder.get(), &got}}) {
        must(encoder->run_to(layer, *state, pool_));
        must(encoder->route(layer, *state, pool_));
      }
      auto const theirs = cpu.encoder->routing(expected);
      auto const ours = gpu.encoder->routing(got);
      std::int64_t others = 0;
      for (std::int64_t t = 0; t < theirs.tokens(); ++t) others += ours.experts(t, 0) != theirs.experts(t, 0) ? 1 : 0;
      if (dense == Dtype::f32) {
        EXPECT_EQ(others, 0) << "layer " << layer;
      }
      // Rounded activations may choose otherwise; what is compared is the arithmetic.
      for (std::int64_t t = 0; t < theirs.tokens(); ++t) ours.experts(t, 0) = theirs.experts(t, 0);
      must(cpu.encoder->run_moe(layer, expected, pool_, {}));
      must(gpu.encoder->run_moe(layer, got, pool_, {}));
    }
    must(cpu.encoder->finish(expected, pool_));
    must(gpu.encoder->finish(got, pool_));
    // Scores are not scaled by T5's rule: a softmax that is nearly one-hot makes much of a rounding in single tokens.
    EXPECT_LE(distance(got.hidden(), expected.hidden()), 5 * tolerance);
    EXPECT_LE(distance(got.pooled(), expected.pooled()), tolerance);
    EXPECT_LE(distance(got.logits(), expected.logits()), tolerance);
  }

  InlinePool pool_;
};

TEST_F(CudaSwitchEncoder, IsTheCpuInFloat32) {
  for (CapacityRule const rule : {CapacityRule::none, CapacityRule::hf, CapacityRule::hf_4_32}) {
    if (test::kIsSanitized && rule != CapacityRule::hf) continue;
    compare(testing::small_config(), Dtype::f32, Dtype::f32, {.capacity_rule = rule}, 1e-5);
  }
  SwitchConfig config = testing::small_config();
  config.activation = FfnKind::gelu;
  config.encoder_sparse_step = 1;
  config.d_model = 64;
  config.d_kv = 70;
  config.num_heads = 2;
  config.d_ff = 96;
  compare(config, Dtype::f32, Dtype::f32, {}, 1e-5);
}

TEST_F(CudaSwitchEncoder, IsNearTheCpuInHalfTypes) {
  SwitchConfig config = testing::small_config();
  for (Dtype const dtype : {Dtype::bf16, Dtype::f16}) {
    if (test::kIsSanitized && dtype == Dtype::f16) continue;
    compare(config, dtype, dtype, {.capacity_rule = CapacityRule::none}, 2e-2);
    compare(config, Dtype::f32, dtype, {.capacity_rule = CapacityRule::none}, 2e-2);
  }
  config.d_model = 64;
  config.d_ff = 128;
  config.d_kv = 16;
  compare(config, Dtype::bf16, Dtype::bf16, {.capacity_rule = CapacityRule::none}, 2e-2);
}

TEST_F(CudaSwitchEncoder, BytesDoNotDependOnBudgetsPoliciesOrEarlierBatches) {
  SwitchConfig const config = testing::small_config();
  testing::TempDir const folder;
  testing::write_checkpoint(folder, config, testing::random_tensors(config, Dtype::bf16, Dtype::bf16));
  using Slots = std::vector<std::uint64_t>;
  std::vector<PolicyKind> policies{PolicyKind::lru, PolicyKind::next_use};
  if (test::kIsSanitized) policies = {PolicyKind::next_use};
  if (!kIsOnHost) policies.insert(policies.end(), {PolicyKind::fifo, PolicyKind::lfru});
  std::size_t const longest = kIsOnHost ? 16 : 66;
  TokenBatch const batch = testing::random_batch({7, 1, longest}, config.vocab_size, 3);
  std::string first;
  for (std::uint64_t const slots : kIsOnHost ? Slots{1, 0} : Slots{1, 2, 5, 0}) {
    for (std::uint64_t const host_slots : kIsOnHost ? Slots{1, 0} : Slots{1, 4, 0}) {
      for (PolicyKind const policy : policies) {
        DeviceEncoder gpu(folder.path(), {.slots = slots, .host_slots = host_slots, .policy = policy});
        SwitchEncoder::State state;
        testing::run_batch(*gpu.encoder, testing::random_batch({longest + 10}, config.vocab_size, 4), state, pool_);
        for (int repeat = 0; repeat < (kIsOnHost ? 1 : 2); ++repeat) {
          testing::run_batch(*gpu.encoder, batch, state, pool_);
          if (first.empty()) first = testing::output_bytes(state);
          EXPECT_EQ(testing::output_bytes(state), first) << slots << " slots over " << host_slots;
        }
      }
    }
  }
}

TEST_F(CudaSwitchEncoder, ABatchMayBeLeftHalfWay) {
  SwitchConfig const config = testing::small_config();
  testing::TempDir const folder;
  testing::write_checkpoint(folder, config, testing::random_tensors(config, Dtype::bf16, Dtype::bf16));
  DeviceEncoder gpu(folder.path(), {.slots = 2});
  TokenBatch const batch = testing::random_batch({7, 1, 20}, config.vocab_size, 3);
  SwitchEncoder::State state;
  testing::run_batch(*gpu.encoder, batch, state, pool_);
  std::string const expected = testing::output_bytes(state);
  for (int i = 0; i < (kIsOnHost ? 2 : 5); ++i) {
    must(gpu.encoder->begin(testing::random_batch({40}, config.vocab_size, 1), state));
    must(gpu.encoder->run_to(0, state, pool_));
    testing::run_batch(*gpu.encoder, batch, state, pool_);
    EXPECT_EQ(testing::output_bytes(state), expected);
  }
  must(gpu.encoder->begin(batch, state));
  must(gpu.encoder->run_to(0, state, pool_));
  SwitchEncoder::State const gone = std::move(state);
}

TEST_F(CudaSwitchEncoder, MayGoWhileABatchIsHalfWay) {
  SwitchConfig const config = testing::small_config();
  testing::TempDir const folder;
  testing::write_checkpoint(folder, config, testing::random_tensors(config, Dtype::bf16, Dtype::bf16));
  DeviceEncoder gpu(folder.path());
  test::PoolMemory pool;
  auto encoder = testing::value_of(cuda::load_switch_encoder(gpu.checkpoint, *gpu.store, {},
                                                             {.stream = gpu.stream.get(),
                                                              .blas = gpu.blas.get(),
                                                              .device = pool,
                                                              .pinned = gpu.pinned,
                                                              .host = gpu.host_memory}));
  SwitchEncoder::State state;
  must(encoder->begin(testing::random_batch({40}, config.vocab_size, 1), state));
  must(encoder->run_to(0, state, pool_));
  encoder.reset();
  state = SwitchEncoder::State();
  EXPECT_TRUE(pool.was_left_alone());
}

TEST_F(CudaSwitchEncoder, TakesMoreSequencesThanAGridHasRows) {
  std::uint32_t constexpr kSequences = 65'600;  // all but the last are empty
  std::vector<std::uint32_t> offsets(kSequences + 1);
  offsets.back() = 1;
  test::DeviceBytes device_offsets(offsets.size() * sizeof(std::uint32_t)), buckets(sizeof(std::int32_t) * 2);
  test::must(cudaMemcpy(device_offsets.bytes().data(), offsets.data(), offsets.size() * sizeof(std::uint32_t),
                        cudaMemcpyHostToDevice));
  test::must(cudaMemset(buckets.bytes().data(), 0, buckets.bytes().size()));
  using Floats = std::vector<float>;
  test::DeviceFloats q(Floats{1}, 1), k(Floats{1}, 1), v(Floats{7}, 1), bias(Floats{0}, 1), context(Floats{0}, 1);
  cuda::kernels::Attention args;
  args.q = q.data();
  args.k = k.data();
  args.v = v.data();
  args.stride = 1;
  args.context = context.data();
  args.context_stride = 1;
  args.offsets = reinterpret_cast<std::uint32_t const*>(device_offsets.bytes().data());
  args.position_bias = bias.data();
  args.position_buckets = reinterpret_cast<std::int32_t const*>(buckets.bytes().data());
  args.sequences = kSequences;
  args.heads = 1;
  args.d_kv = 1;
  args.buckets = 1;
  args.max_distance = 1;
  args.longest = 1;
  auto const stream = testing::value_of(cuda::Stream::create());
  test::must(cudaStreamSynchronize(nullptr));
  test::must(cuda::kernels::attention(stream.get(), Dtype::f32, args));
  must(stream.synchronize());
  EXPECT_EQ(context.values(), std::vector<float>{7.0F});
}

TEST_F(CudaSwitchEncoder, WantsAStoreOfDeviceMemory) {
  SwitchConfig const config = testing::small_config();
  testing::TempDir const folder;
  testing::write_checkpoint(folder, config, testing::random_tensors(config));
  DeviceEncoder gpu(folder.path());
  auto const encoder = cuda::load_switch_encoder(gpu.checkpoint, *gpu.host_store, {},
                                                 {.stream = gpu.stream.get(),
                                                  .blas = gpu.blas.get(),
                                                  .device = gpu.device,
                                                  .pinned = gpu.pinned,
                                                  .host = gpu.host_memory});
  EXPECT_EQ(encoder.code(), Errc::invalid_argument);
  EXPECT_EQ(SwitchEncoder::load(gpu.checkpoint, *gpu.store, {}, gpu.host_memory).code(), Errc::invalid_argument);
}

}  // namespace
}  // namespace sida
