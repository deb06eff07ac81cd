// The engine's own GPU: a stream, a cuBLAS handle, and a pool over one block of memory. Knows nothing of sida.
#pragma once

#include <cstddef>
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <map>

namespace engine {

/// Prints what failed, and ends the program.
[[noreturn]] void fail(char const* what);
void must(cudaError_t error);
void must(cublasStatus_t status);

/// First fit over one cudaMalloc, in units of 256 bytes.
class Pool {
 public:
  explicit Pool(std::size_t bytes);
  ~Pool();
  Pool(Pool const&) = delete;
  Pool& operator=(Pool const&) = delete;
  /// nullptr when there is no such room.
  void* take(std::size_t bytes);
  void give_back(void* data);
  std::size_t used() const { return used_; }

 private:
  std::byte* base_ = nullptr;
  std::size_t size_;
  std::map<std::size_t, std::size_t> taken_;  // offset -> bytes
  std::size_t used_ = 0;
};

struct Device {
  explicit Device(std::size_t pool_bytes);
  ~Device();
  Device(Device const&) = delete;
  Device& operator=(Device const&) = delete;

  cudaStream_t stream = nullptr;
  cublasHandle_t blas = nullptr;
  Pool pool;
};

}  // namespace engine
