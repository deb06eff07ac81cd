#pragma once

#include <cstdint>
#include <cuda_runtime.h>
#include <span>

#include "model/switch_tensors.hpp"
#include "model/switch_weights.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/io/tensor_source.hpp"

namespace sida::inline v0::model_detail {

/// The dense weights of a Switch encoder in device memory. Routers are float32, as transformers casts them; all else
/// has its type on disk.
struct DeviceSwitchWeights {
  SwitchWeights at;  // pointers into device memory; `arena` too
  // In host memory, for predictors.
  WeightMatrix embedding;
  Buffer embedding_bytes;

  std::size_t device_bytes() const noexcept { return at.arena.size_bytes(); }
};

/// Reads through host memory, and waits for `stream`. @return as load_switch_weights, and device.
Result<DeviceSwitchWeights> load_device_switch_weights(SwitchConfig const& config, SwitchTensors const& tensors,
                                                       TensorSource const& source, MemoryResource& device,
                                                       MemoryResource& host, cudaStream_t stream);

}  // namespace sida::inline v0::model_detail
