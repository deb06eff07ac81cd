#include <algorithm>
#include <array>
#include <utility>

#include "kernels/cuda/device.cuh"

namespace sida::inline v0::cuda::kernels {

namespace {

/// Whether a device of sm_90 runs code that was compiled for it: code for less does not wait for the kernel before it.
constexpr bool is_compiled_for_early_starts() {
#if defined(__CUDA_ARCH_LIST__)
  for (int const arch : {__CUDA_ARCH_LIST__}) {
    if (arch >= 900) return true;
  }
  return false;
#else
  return true;
#endif
}

}  // namespace

bool starts_early() noexcept {
  thread_local int known_device = -1;
  thread_local bool known = false;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  if (device != known_device) {
    int major = 0;
    known = is_compiled_for_early_starts() &&
            cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 9;
    known_device = device;
  }
  return known;
}

cudaError_t allow_shared(void const* kernel, unsigned bytes) noexcept {
  thread_local std::array<std::pair<int, void const*>, 32> known{};
  thread_local std::size_t count = 0;
  int device = 0;
  if (cudaError_t const error = cudaGetDevice(&device); error != cudaSuccess) return error;
  std::pair const key(device, kernel);
  auto const end = known.begin() + static_cast<std::ptrdiff_t>(count);
  if (std::find(known.begin(), end, key) != end) return cudaSuccess;
  cudaError_t const error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error == cudaSuccess && count < known.size()) known[count++] = key;
  return error;
}

}  // namespace sida::inline v0::cuda::kernels
