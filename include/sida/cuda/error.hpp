#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <string_view>

#include "sida/core/api.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0::cuda {

/// Success, or Errc::device (Errc::out_of_memory for cudaErrorMemoryAllocation) with "call: cudaErrorName (text)".
/// Takes the error from cudaGetLastError: whoever asks next did not cause it.
SIDA_API Status check(cudaError_t error, std::string_view call);
SIDA_API Status check(cublasStatus_t status, std::string_view call);

/// Whether there are a driver and a device. @return Errc::device, naming CUDA's error, where there are none.
SIDA_API Status require_device();

}  // namespace sida::inline v0::cuda
