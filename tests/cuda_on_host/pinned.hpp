#pragma once

#include <cstdlib>
#include <cuda_runtime.h>

/// Pinned memory for tests of the stand-in.
inline void* allocate_pinned(std::size_t size) {
  constexpr std::size_t kPage = 4096;
  std::size_t const whole = (size + kPage - 1) / kPage * kPage;
  void* const memory = std::aligned_alloc(kPage, whole);
  return cudaHostRegister(memory, whole, cudaHostRegisterPortable) == cudaSuccess ? memory : nullptr;
}
inline cudaError_t free_pinned(void* memory) {
  cudaError_t const error = cudaHostUnregister(memory);
  std::free(memory);
  return error;
}
