#pragma once

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <type_traits>

#include "sida/core/dtype.hpp"

/// What kernels share: elements, rows of 16 bytes, sums over a warp, launches. Device code only, but for `launch`.
namespace sida::inline v0::cuda::kernels {

inline constexpr unsigned kAllLanes = 0xFFFFFFFFU;
inline constexpr int kWarp = 32;

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(bf16 value) { return __uint_as_float(std::uint32_t{value.bits} << 16); }
__device__ __forceinline__ float widen(fp16 value) { return __half2float(__ushort_as_half(value.bits)); }

template <class T>
__device__ __forceinline__ T narrow(float value) {
  if constexpr (std::is_same_v<T, bf16>) {
    return bf16{__bfloat16_as_ushort(__float2bfloat16_rn(value))};
  } else if constexpr (std::is_same_v<T, fp16>) {
    return fp16{__half_as_ushort(__float2half_rn(value))};
  } else {
    return value;
  }
}

/// Elements of one 16-byte load.
template <class T>
inline constexpr int kPack = 16 / static_cast<int>(sizeof(T));

/// WIDTH consecutive elements as floats: one 16-byte load where WIDTH is kPack<T>, else one by one.
template <class T, int WIDTH>
__device__ __forceinline__ void load_floats(T const* from, float (&to)[WIDTH]) {
  if constexpr (WIDTH == kPack<T>) {
    uint4 const raw = *reinterpret_cast<uint4 const*>(from);
    std::uint32_t const words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (std::is_same_v<T, float>) {
        to[i] = __uint_as_float(words[i]);
      } else {
        to[2 * i] = widen(T{static_cast<std::uint16_t>(words[i] & 0xFFFFU)});
        to[2 * i + 1] = widen(T{static_cast<std::uint16_t>(words[i] >> 16)});
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) to[i] = widen(from[i]);
  }
}

/// The sum over a warp, in every lane.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}

__device__ __forceinline__ float relu(float value) { return value < 0.0F ? 0.0F : value; }  // NaN stays
__device__ __forceinline__ float gelu(float value) {
  return 0.5F * value * (1.0F + erff(value * 0.70710678118654752F));
}
__device__ __forceinline__ float silu(float value) { return value / (1.0F + expf(-value)); }

/// Work of the kernel before this one on the stream is visible from here on. A kernel that is launched by
/// `launch_early` calls it before it touches what another kernel writes or reads, and may do other things before.
__device__ __forceinline__ void wait_for_earlier_kernel() {
#if !defined(__CUDACC__) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
  cudaGridDependencySynchronize();
#endif
}
/// The next kernel, if it is launched by `launch_early`, may start once all blocks of this one have come here.
__device__ __forceinline__ void let_next_kernel_start() {
#if !defined(__CUDACC__) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

/// Whether the current device has that: asked once for each thread and device.
bool starts_early() noexcept;
/// Lets `kernel` have so much shared memory; asked of CUDA once for each thread, device and kernel.
cudaError_t allow_shared(void const* kernel, unsigned bytes) noexcept;

/// The block's shared memory whose size the launch says, aligned to 16 bytes.
#if defined(__CUDACC__)
#define SIDA_DYNAMIC_SHARED(name) extern __shared__ uint4 name[]
#else
#define SIDA_DYNAMIC_SHARED(name) uint4* const name = static_cast<uint4*>(cuda_on_host_dynamic_shared())
#endif

/// A block: its threads, and the shared memory that is not declared.
struct Block {
  dim3 threads;
  unsigned shared_bytes = 0;
  Block(unsigned threads_, unsigned shared_bytes_ = 0) : threads(threads_), shared_bytes(shared_bytes_) {}
};

namespace detail {
template <class... Parameters, class... Arguments>
cudaError_t launch(cudaStream_t stream, dim3 grid, Block block, bool early, void (*kernel)(Parameters...),
                   Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  if (block.shared_bytes > 48 * 1024) {  // more than a kernel gets unasked
    cudaError_t const error = allow_shared(reinterpret_cast<void const*>(kernel), block.shared_bytes);
    if (error != cudaSuccess) return error;
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block.threads;
  config.dynamicSmemBytes = block.shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = early ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}
}  // namespace detail

/// Enqueues a kernel. @return the launch's own error.
template <class... Parameters, class... Arguments>
cudaError_t launch(cudaStream_t stream, dim3 grid, Block block, void (*kernel)(Parameters...), Arguments... arguments) {
  return detail::launch(stream, grid, block, false, kernel, arguments...);
}

/// Enqueues a kernel that may start while the one before it ends; it must call `wait_for_earlier_kernel`. Hides the
/// start of each of a row of short kernels, on sm_90 and later.
template <class... Parameters, class... Arguments>
cudaError_t launch_early(cudaStream_t stream, dim3 grid, Block block, void (*kernel)(Parameters...),
                         Arguments... arguments) {
  return detail::launch(stream, grid, block, starts_early(), kernel, arguments...);
}

constexpr unsigned blocks_for(std::int64_t items, std::int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

}  // namespace sida::inline v0::cuda::kernels
