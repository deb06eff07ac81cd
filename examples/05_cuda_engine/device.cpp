#include "device.hpp"

#include <cstdio>
#include <cstdlib>

namespace engine {

void fail(char const* what) {
  std::fprintf(stderr, "cuda_engine: %s\n", what);
  std::exit(1);
}

void must(cudaError_t error) {
  if (error != cudaSuccess) fail(cudaGetErrorString(error));
}

void must(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS) fail(cublasGetStatusName(status));
}

Pool::Pool(std::size_t bytes) : size_(bytes) {
  void* data = nullptr;
  must(cudaMalloc(&data, bytes));
  base_ = static_cast<std::byte*>(data);
}

Pool::~Pool() { static_cast<void>(cudaFree(base_)); }

void* Pool::take(std::size_t bytes) {
  std::size_t const whole = (bytes + 255) / 256 * 256;
  std::size_t at = 0;
  for (auto const& [offset, length] : taken_) {
    if (offset - at >= whole) break;
    at = offset + length;
  }
  if (size_ - at < whole) return nullptr;
  taken_[at] = whole;
  used_ += whole;
  return base_ + at;
}

void Pool::give_back(void* data) {
  auto const found = taken_.find(static_cast<std::size_t>(static_cast<std::byte*>(data) - base_));
  used_ -= found->second;
  taken_.erase(found);
}

Device::Device(std::size_t pool_bytes) : pool(pool_bytes) {
  must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  must(cublasCreate(&blas));
}

Device::~Device() {
  static_cast<void>(cublasDestroy(blas));
  static_cast<void>(cudaStreamDestroy(stream));
}

}  // namespace engine
