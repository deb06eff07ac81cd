#include <memory>
#include <string>

#include "tests/cuda/device_encoder.hpp"
#include "tests/cuda/device_fixture.hpp"
#include "tests/cuda/faults.hpp"
#include "tests/cuda/pool_memory.hpp"
#include "tests/model/random_checkpoint.hpp"

namespace sida {
namespace {

using testing::DeviceEncoder;

class CudaModelFaults : public test::DeviceTest {
 protected:
  void write(std::int64_t layers, std::uint32_t experts) {
    config_ = testing::tiny_config(layers, experts);
    testing::write_checkpoint(folder_, config_, testing::random_tensors(config_, Dtype::bf16, Dtype::bf16));
  }

  SwitchConfig config_;
  testing::TempDir folder_;
  InlinePool pool_;
};

TEST_F(CudaModelFaults, EveryCallMayFail) {
  write(2, 4);
  auto const batch = testing::random_batch({3, 2}, config_.vocab_size, 3);
  test::fail_every_call([&] {
    test::Outcome outcome;
    std::unique_ptr<DeviceEncoder> gpu;
    retried(outcome, [&] {
      gpu = std::make_unique<DeviceEncoder>(folder_.path(), testing::DeviceSetup{.slots = 2, .host_slots = 3});
    });
    SwitchEncoder::State state;
    retried(outcome, [&] {
      testing::run_batch(*gpu->encoder, batch, state, pool_);
      outcome.bytes = testing::output_bytes(state);
    });
    state = SwitchEncoder::State();
    gpu.reset();
    return outcome;
  });
}

// A step that failed is repeated, or the batch begun anew where it says that there is none: then the answer is right.
TEST_F(CudaModelFaults, AStepThatFailedMayBeRepeatedWhereThereIsABatch) {
  write(2, 4);
  auto const batch = testing::random_batch({3, 2}, config_.vocab_size, 3);
  DeviceEncoder gpu(folder_.path(), {.slots = 2});
  SwitchEncoder& encoder = *gpu.encoder;
  SwitchEncoder::State state;
  testing::run_batch(encoder, batch, state, pool_);
  std::string const right = testing::output_bytes(state);
  for (char const* const function : {"cudaLaunchKernelEx", "cudaMemcpyAsync", "cublasLtMatmul"}) {
    int failures = 1;
    for (int n = 1; failures > 0; n += test::kIsSanitized ? 5 : 1) {
      failures = 0;
      cuda_on_host::reset();
      cuda_on_host::fail(function, n, function[2] == 'd' ? int{cudaErrorUnknown} : int{CUBLAS_STATUS_EXECUTION_FAILED});
      bool has_batch = false;
      while (!has_batch) {
        has_batch = true;
        auto const repeated = [&](auto const& step) {
          Status const status = has_batch ? step() : Status();
          if (status) return;
          ++failures;
          has_batch = static_cast<bool>(step());
        };
        repeated([&] { return encoder.begin(batch, state); });
        repeated([&] { return encoder.run_to(0, state, pool_); });
        repeated([&] { return encoder.route(0, state, pool_); });
        repeated([&] { return encoder.run_moe(0, state, pool_, {}); });
        repeated([&] { return encoder.finish(state, pool_); });
      }
      EXPECT_TRUE(testing::output_bytes(state) == right) << function << ", call " << n;
      EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
    }
  }
}

TEST_F(CudaModelFaults, ALoadThatFailsLeavesNothingUnderWay) {
  write(4, 10);
  DeviceEncoder gpu(folder_.path());
  bool loaded = false;
  for (int n = 1; !loaded; ++n) {
    test::PoolMemory pool;
    cuda_on_host::reset();
    cuda_on_host::set({.hold_copies = true});
    cuda_on_host::fail("cudaMemcpyAsync", n, cudaErrorUnknown);
    auto const encoder = cuda::load_switch_encoder(gpu.checkpoint, *gpu.store, {},
                                                   {.stream = gpu.stream.get(),
                                                    .blas = gpu.blas.get(),
                                                    .device = pool,
                                                    .pinned = gpu.pinned,
                                                    .host = gpu.host_memory});
    loaded = static_cast<bool>(encoder);
    EXPECT_TRUE(pool.was_left_alone()) << "copy " << n << " failed";
  }
  cuda_on_host::reset();
}

// After one warm batch, another of its size makes nothing.
TEST_F(CudaModelFaults, AWarmBatchMakesNothing) {
  write(4, 10);
  for (std::uint64_t const slots : {0, 4}) {  // all experts, and 20 % of them
    DeviceEncoder gpu(folder_.path(), {.slots = slots});
    SwitchEncoder::State state;
    auto const batch = testing::random_batch({3, 5}, config_.vocab_size, 3);
    testing::run_batch(*gpu.encoder, batch, state, pool_);
    cuda_on_host::reset();
    testing::run_batch(*gpu.encoder, testing::random_batch({3, 5}, config_.vocab_size, 4), state, pool_);
    auto const calls = cuda_on_host::calls();
    EXPECT_TRUE(calls.contains("cudaLaunchKernelEx"));
    for (char const* const function :
         {"cudaMalloc", "cudaFree", "cudaHostRegister", "cudaHostUnregister", "cudaEventCreateWithFlags",
          "cudaStreamCreateWithFlags", "cudaFuncSetAttribute", "cublasCreate_v2", "cublasLtMatmulAlgoGetHeuristic"}) {
      EXPECT_FALSE(calls.contains(function)) << function << " with " << slots << " slots";
    }
  }
}

}  // namespace
}  // namespace sida
