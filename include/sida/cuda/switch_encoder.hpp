#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <memory>

#include "sida/core/api.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/model/switch_checkpoint.hpp"
#include "sida/model/switch_encoder.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::inline v0::cuda {

/// What the caller lends a model on a device. All of it must outlive the encoder and its states.
struct SwitchResources {
  cudaStream_t stream = nullptr;  ///< on which everything runs
  cublasHandle_t blas = nullptr;  ///< of the same device
  MemoryResource& device;         ///< weights, activations
  MemoryResource& pinned;         ///< host memory that a device copies from and to
  MemoryResource& host;           ///< the embedding, which predictors read
};

/// A Switch encoder on a GPU, with the steps, the rules and the outputs (in host memory) of the one on a CPU. The
/// residual stream, norms, attention and the router are float32; before a product, activations are rounded to the
/// weights' type, and float32 weights are multiplied in float32 (no TF32). `store` holds the experts in device memory.
/// The host waits in `route` and in `finish`; see `cuda::MoeLayer`. The thread pool of the steps is not used.
/// @return as SwitchEncoder::load, and device.
SIDA_API Result<std::unique_ptr<SwitchEncoder>> load_switch_encoder(SwitchCheckpoint const& checkpoint,
                                                                    ExpertStore& store, SwitchOptions const& options,
                                                                    SwitchResources const& resources);

}  // namespace sida::inline v0::cuda
