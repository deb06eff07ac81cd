#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <string_view>

#include "sida/core/api.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0::cuda {

/// Success, or Errc::device (Errc::out_of_memory for cudaErrorMemoryAllocation) with "call: cudaErrorName (text)".
SIDA_API Status check(cudaError_t error, std::string_view call);
SIDA_API Status check(cublasStatus_t status, std::string_view call);

/// Whether the current thread's device can be used. @return Errc::device, naming CUDA's error, where there is none.
SIDA_API Status require_device();

}  // namespace sida::inline v0::cuda
