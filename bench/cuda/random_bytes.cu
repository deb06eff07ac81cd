#include "bench/cuda/device_timer.hpp"
#include "bench/cuda/random_bytes.hpp"
#include "kernels/cuda/device.cuh"

namespace sida::bench {
namespace {

using cuda::kernels::launch;

__device__ __forceinline__ std::uint32_t mixed(std::uint64_t value) {
  value = (value + 0x9E3779B97F4A7C15U) * 0xBF58476D1CE4E5B9U;
  value = (value ^ value >> 27) * 0x94D049BB133111EBU;
  return static_cast<std::uint32_t>(value >> 32);
}

__global__ void random_words(std::uint32_t* words, std::uint64_t count) {
  std::uint64_t const step = static_cast<std::uint64_t>(gridDim.x) * blockDim.x;
  for (std::uint64_t i = blockIdx.x * static_cast<std::uint64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
    words[i] = mixed(i);
  }
}

template <class T>
__global__ void random_numbers(T* numbers, std::uint64_t count) {
  std::uint64_t const step = static_cast<std::uint64_t>(gridDim.x) * blockDim.x;
  for (std::uint64_t i = blockIdx.x * static_cast<std::uint64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
    numbers[i] = cuda::kernels::narrow<T>(static_cast<float>(mixed(i)) * 0x1p-31F - 1.0F);
  }
}

__global__ void __launch_bounds__(512) read_words(uint4 const* words, std::uint64_t count, unsigned* out) {
  std::uint64_t const step = static_cast<std::uint64_t>(gridDim.x) * blockDim.x;
  std::uint64_t const first = blockIdx.x * static_cast<std::uint64_t>(blockDim.x) + threadIdx.x;
  unsigned sum = 0;
#pragma unroll 8
  for (std::uint64_t i = first; i < count; i += step) {
    uint4 const word = words[i];
    sum ^= word.x ^ word.y ^ word.z ^ word.w;
  }
  if (sum == 0x12345678U) out[first % 1024] = sum;  // never known before, so nothing is left out
}

__global__ void touch_word(unsigned* word) {
  if (threadIdx.x == 0) *word += 1;
}

}  // namespace

void fill_random(std::span<std::byte> bytes, cudaStream_t stream) {
  must(launch(stream, 1024, 256, random_words, reinterpret_cast<std::uint32_t*>(bytes.data()), bytes.size() / 4));
}

void fill_random_numbers(std::span<std::byte> bytes, Dtype dtype, cudaStream_t stream) {
  must(with_element(dtype, [&]<class T>(T) {
    return launch(stream, 1024, 256, random_numbers<T>, reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T));
  }));
}

cudaError_t read_all(std::span<std::byte const> bytes, unsigned* out, cudaStream_t stream) {
  return launch(stream, 132 * 4, 512, read_words, reinterpret_cast<uint4 const*>(bytes.data()), bytes.size() / 16, out);
}

cudaError_t touch(unsigned* word, cudaStream_t stream) { return launch(stream, 1, 32, touch_word, word); }

}  // namespace sida::bench
