#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <limits>
#include <random>
#include <vector>

#include "cuda_on_host/control.hpp"
#include <gmock/gmock.h>

namespace {

using testing::Each;
using testing::HasSubstr;

class Kernel : public testing::Test {
 protected:
  Kernel() { cuda_on_host::reset(); }
  ~Kernel() override {
    for (int* const memory : memory_) cudaFree(memory);
    cuda_on_host::reset();
  }

  int* device(std::size_t count) {
    int* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, count * sizeof(int)), cudaSuccess);
    EXPECT_EQ(cudaMemset(memory, 0, count * sizeof(int)), cudaSuccess);
    memory_.push_back(memory);
    return memory;
  }
  template <class... Params, class... Args>
  cudaError_t launch(dim3 grid, dim3 block, void (*kernel)(Params...), Args... args) {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes_;
    cudaError_t const error = cudaLaunchKernelEx(&config, kernel, args...);
    return error == cudaSuccess ? cudaDeviceSynchronize() : error;
  }
  std::vector<int> read(int const* memory, std::size_t count) {
    std::vector<int> host(count);
    EXPECT_EQ(cudaMemcpy(host.data(), memory, count * sizeof(int), cudaMemcpyDeviceToHost), cudaSuccess);
    return host;
  }

  std::size_t shared_bytes_ = 0;

 private:
  std::vector<int*> memory_;
};

__global__ void __launch_bounds__(64) number(unsigned* __restrict__ out) {
  unsigned const block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  unsigned const thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  unsigned const i = block * blockDim.x * blockDim.y * blockDim.z + thread;
  out[i] = i + 1;
}
TEST_F(Kernel, RunsEachThreadOfEachBlockOnce) {
  int* const out = device(24 * 60);
  ASSERT_EQ(launch(dim3(2, 3, 4), dim3(3, 4, 5), number, reinterpret_cast<unsigned*>(out)), cudaSuccess);
  auto const result = read(out, 24 * 60);
  for (int i = 0; i < 24 * 60; ++i) ASSERT_EQ(result[static_cast<std::size_t>(i)], i + 1);
}

__device__ __forceinline__ float warp_sum(float value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffU, value, step);
  return value;
}
template <int kThreads>
__global__ void sum(float const* in, float* out, std::size_t per_block) {
  __shared__ float partial[kThreads / 32];
  float value = 0;
#pragma unroll
  for (std::size_t i = threadIdx.x; i < per_block; i += kThreads) value += __ldg(in + blockIdx.x * per_block + i);
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0;
    for (float const part : partial) total += part;
    out[blockIdx.x] = total;
  }
}
TEST_F(Kernel, ReducesThroughWarpsAndSharedMemory) {
  constexpr unsigned kBlocks = 20, kPerBlock = 1000;
  std::vector<float> host(kBlocks * kPerBlock);
  for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<float>(i % 16);
  int* const in = device(host.size());
  int* const out = device(kBlocks);
  ASSERT_EQ(cudaMemcpy(in, host.data(), host.size() * sizeof(float), cudaMemcpyHostToDevice), cudaSuccess);
  ASSERT_EQ(launch(kBlocks, 256, sum<256>, reinterpret_cast<float*>(in), reinterpret_cast<float*>(out), kPerBlock),
            cudaSuccess);
  auto const bits = read(out, kBlocks);
  for (unsigned block = 0; block < kBlocks; ++block) {
    float expected = 0;
    for (unsigned i = 0; i < kPerBlock; ++i) expected += host[block * kPerBlock + i];
    EXPECT_EQ(__uint_as_float(static_cast<unsigned>(bits[block])), expected);
  }
}

__global__ void shuffles(int* out) {
  int const lane = static_cast<int>(threadIdx.x);
  out[lane] = __shfl_sync(0xffffffffU, lane, 37);
  out[32 + lane] = __shfl_xor_sync(0xffffffffU, lane, 9);
  unsigned long long const wide = 1ULL << 40 << lane % 8;
  out[64 + lane] = static_cast<int>(__shfl_sync(0xffffffffU, wide, lane ^ 1) >> 40);
  out[96 + lane] = __any_sync(0xffffffffU, lane == 9) + 2 * __any_sync(0xffffffffU, lane == 32);
  auto const all = cuda_on_host_exchange(uint3{threadIdx.x, 2 * threadIdx.x, 3 * threadIdx.x});
  out[128 + lane] = static_cast<int>(all[31 - threadIdx.x].y + all[threadIdx.x].z);
}
TEST_F(Kernel, ShufflesAsAWarpDoes) {
  int* const out = device(160);
  ASSERT_EQ(launch(1, 32, shuffles, out), cudaSuccess);
  auto const result = read(out, 160);
  for (int lane = 0; lane < 32; ++lane) {
    auto const at = [&](int row) { return result[static_cast<std::size_t>(row * 32 + lane)]; };
    EXPECT_EQ(at(0), 5);
    EXPECT_EQ(at(1), lane ^ 9);
    EXPECT_EQ(at(2), 1 << (lane ^ 1) % 8);
    EXPECT_EQ(at(3), 1);
    EXPECT_EQ(at(4), 2 * (31 - lane) + 3 * lane);
  }
}

__global__ void exits_early(int* out, int lanes) {
  int const lane = static_cast<int>(threadIdx.x);
  if (lane >= lanes) return;
  out[lane] = __any_sync(0xffffffffU, lane % 32 == 4) + 2 * __shfl_sync(0xffffffffU, lane, 6);
}
TEST_F(Kernel, CountsExitedLanesAsArrived) {
  int* const out = device(40);
  ASSERT_EQ(launch(1, 40, exits_early, out, 37), cudaSuccess);  // the second warp has 8 lanes, of which 5 stay
  auto const result = read(out, 40);
  EXPECT_EQ(result[0], 13);
  EXPECT_EQ(result[32], -1);
  EXPECT_EQ(result[39], 0);
}

__global__ void shared_words(int* out, int words) {
  auto* const shared = static_cast<int*>(cuda_on_host_dynamic_shared());
  int const i = static_cast<int>(threadIdx.x);
  bool const is_fresh = shared[words - 1 - i] == -1;
  __syncthreads();
  shared[i] = i;
  __syncthreads();
  out[blockIdx.x * 32 + threadIdx.x] = is_fresh ? shared[31 - i] : -2;
}
TEST_F(Kernel, GivesABlockTheSharedMemoryOfItsLaunch) {
  int* const out = device(96);
  for (int const words : {32, 12288, 58112}) {  // 48 KiB go unasked, 227 KiB at most
    shared_bytes_ = static_cast<std::size_t>(words) * 4;
    auto const* const kernel = reinterpret_cast<void const*>(shared_words);
    if (words > 12288) {
      EXPECT_EQ(launch(3, 32, shared_words, out, words), cudaErrorInvalidValue);
      EXPECT_EQ(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, words * 4), cudaSuccess);
    }
    ASSERT_EQ(launch(3, 32, shared_words, out, words), cudaSuccess);
    EXPECT_EQ(read(out, 96)[69], 26);
    EXPECT_EQ(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (227 << 10) + 1),
              cudaErrorInvalidValue);
  }
}

__global__ void skips_barrier(int who) {
  if (static_cast<int>(threadIdx.x) == who) return;
  __syncthreads();
}
TEST_F(Kernel, FailsWhereABarrierWouldHang) {
  EXPECT_EQ(launch(3, 64, skips_barrier, -1), cudaSuccess);
  EXPECT_EQ(launch(3, 64, skips_barrier, 7), cudaErrorLaunchFailure);
  EXPECT_THAT(cuda_on_host::failure(), HasSubstr("of 64 threads, 1 exited, 63 wait in __syncthreads"));
  EXPECT_EQ(launch(3, 64, skips_barrier, -1), cudaErrorLaunchFailure);  // for good, as with CUDA
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  cuda_on_host::reset();
  EXPECT_EQ(launch(3, 64, skips_barrier, -1), cudaSuccess);
}

__global__ void wrong_warp(int way) {
  unsigned const lane = threadIdx.x;
  if (way == 0 && lane % 2 == 0) __syncthreads();  // others never come
  if (way == 1) __shfl_sync(0xffffU, 0, 0);        // of some lanes: not what sida does
  if (way == 2 && lane == 0) __syncwarp();         // others shuffle
  if (way == 2 && lane != 0) __shfl_sync(0xffffffffU, 0, 0);
  __syncwarp();
}
TEST_F(Kernel, FailsWhereAWarpWouldHang) {
  char const* const failures[] = {"of 32 threads, 0 exited, 16 wait in __syncthreads",
                                  "a mask that isn't the whole warp's", "0 exited, 0 wait"};
  for (int way = 0; way < 3; ++way) {
    EXPECT_EQ(launch(2, 32, wrong_warp, way), cudaErrorLaunchFailure);
    EXPECT_THAT(cuda_on_host::failure(), HasSubstr(failures[way]));
    cuda_on_host::reset();
  }
}

TEST_F(Kernel, RefusesLaunchesThatNoDeviceTakes) {
  EXPECT_EQ(launch(0, 32, skips_barrier, -1), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(1, 1025, skips_barrier, -1), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(dim3(1, 65536), 32, skips_barrier, -1), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(1, 1024, skips_barrier, -1), cudaSuccess);
  EXPECT_EQ(launch(1, 32, skips_barrier, -1.0F), cudaSuccess);  // arguments convert
}

__global__ void barriers(int* out, int rounds) {
  __shared__ int turn[256];
  for (int i = 0; i < rounds; ++i) {
    turn[threadIdx.x] = i;
    __syncthreads();
    if (turn[(threadIdx.x + 1) % blockDim.x] != i) out[blockIdx.x * blockDim.x + threadIdx.x] = 1;
    __syncthreads();
  }
}
TEST_F(Kernel, KeepsThreadsInStep) {
  int* const out = device(64 * 256);
  ASSERT_EQ(launch(64, 256, barriers, out, 5), cudaSuccess);
  EXPECT_THAT(read(out, 64 * 256), Each(0));
}

TEST(Numbers, ConvertExactly) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    auto const half = static_cast<unsigned short>(bits);
    float const f = __half2float(__ushort_as_half(half)), b = __uint_as_float(bits << 16);
    ASSERT_EQ(__half_as_ushort(__float2half_rn(f)), std::isnan(f) ? 0x7fff : half);
    ASSERT_EQ(__bfloat16_as_ushort(__float2bfloat16_rn(b)), std::isnan(b) ? 0x7fff : half);
    if ((bits & 0x7c00) != 0x7c00) {
      int const exponent = static_cast<int>(bits >> 10 & 0x1f), mantissa = static_cast<int>(bits & 0x3ff);
      double const value = std::ldexp(exponent == 0 ? mantissa : mantissa + 1024, (exponent == 0 ? 1 : exponent) - 25);
      ASSERT_EQ(f, (bits & 0x8000) != 0 ? -value : value);
    }
  }
}
TEST(Numbers, RoundToTheNearestEven) {
  // Between neighbours of either sign and every size: below, at and above the middle.
  for (unsigned bits = 0; bits < 0x7f80; ++bits) {
    auto const check = [&](auto to_float, auto to_bits, unsigned past_last) {
      if (bits + 1 >= past_last) return;
      float const low = to_float(bits), high = to_float(bits + 1), middle = low + (high - low) / 2;
      float const infinity = std::numeric_limits<float>::infinity();
      EXPECT_EQ(to_bits(std::nextafter(middle, -infinity)), bits);
      EXPECT_EQ(to_bits(middle), bits + bits % 2);
      EXPECT_EQ(to_bits(std::nextafter(middle, infinity)), bits + 1);
      EXPECT_EQ(to_bits(-middle), 0x8000 + bits + bits % 2);
    };
    check([](unsigned x) { return __half2float(__ushort_as_half(static_cast<unsigned short>(x))); },
          [](float x) { return __half_as_ushort(__float2half_rn(x)); }, 0x7c00);
    if (bits > 0) {  // below, floats themselves are too coarse to have a middle's neighbours
      check([](unsigned x) { return __uint_as_float(x << 16); },
            [](float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }, 0x7f80);
    }
  }
  EXPECT_EQ(__half_as_ushort(__float2half_rn(65519.0F)), 0x7bff);
  EXPECT_EQ(__half_as_ushort(__float2half_rn(65520.0F)), 0x7c00);
  EXPECT_EQ(__half_as_ushort(__float2half_rn(1e30F)), 0x7c00);
}

}  // namespace
