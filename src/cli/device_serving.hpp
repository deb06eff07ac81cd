#pragma once

#include <memory>

#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/io/expert_source.hpp"
#include "sida/model/switch_checkpoint.hpp"
#include "sida/model/switch_encoder.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::cli {

/// A GPU and what serving on it takes: a stream, a cuBLAS handle, memory. Outlives what it makes.
class DeviceServing {
 public:
  virtual ~DeviceServing() = default;
  /// For the slots of the host store, from which experts are copied.
  virtual MemoryResource& pinned() noexcept = 0;
  virtual Result<std::unique_ptr<ExpertStore>> open_store(ExpertSource const& experts, ExpertStore& host,
                                                          StoreOptions const& options) = 0;
  virtual Result<std::unique_ptr<SwitchEncoder>> load(SwitchCheckpoint const& checkpoint, ExpertStore& store,
                                                      SwitchOptions const& options, MemoryResource& host) = 0;
};

/// On the first GPU. @return device: there is none, or this program was built without CUDA.
Result<std::unique_ptr<DeviceServing>> make_device_serving();

}  // namespace sida::cli
