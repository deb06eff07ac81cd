#include "sida/cuda/error.hpp"

#include <string>

namespace sida::inline v0::cuda {

Status check(cudaError_t error, std::string_view call) {
  if (error == cudaSuccess) [[likely]]
    return {};
  static_cast<void>(cudaGetLastError());  // not to be found by whoever asks next
  Errc const code = error == cudaErrorMemoryAllocation ? Errc::out_of_memory : Errc::device;
  return {code, std::string(call) + ": " + cudaGetErrorName(error) + " (" + cudaGetErrorString(error) + ")"};
}

Status check(cublasStatus_t status, std::string_view call) {
  if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
    return {};
  Errc const code = status == CUBLAS_STATUS_ALLOC_FAILED ? Errc::out_of_memory : Errc::device;
  return {code, std::string(call) + ": " + cublasGetStatusName(status)};
}

Status require_device() {
  int devices = 0;
  return check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
}

}  // namespace sida::inline v0::cuda
