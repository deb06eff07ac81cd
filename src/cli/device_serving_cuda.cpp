#include <utility>

#include "cli/device_serving.hpp"
#include "sida/cuda/device_tier.hpp"
#include "sida/cuda/error.hpp"
#include "sida/cuda/handles.hpp"
#include "sida/cuda/memory.hpp"
#include "sida/cuda/switch_encoder.hpp"
#include "sida/detail/try.hpp"

namespace sida::cli {
namespace {

class CudaServing final : public DeviceServing {
 public:
  CudaServing(cuda::Stream stream, cuda::BlasHandle blas) : stream_(std::move(stream)), blas_(std::move(blas)) {}

  MemoryResource& pinned() noexcept override { return pinned_; }

  Result<std::unique_ptr<ExpertStore>> open_store(ExpertSource const& experts, ExpertStore& host,
                                                  StoreOptions const& options) override {
    return ExpertStore::open(experts, cuda::make_device_tier(host, device_), options);
  }

  Result<std::unique_ptr<SwitchEncoder>> load(SwitchCheckpoint const& checkpoint, ExpertStore& store,
                                              SwitchOptions const& options, MemoryResource& host) override {
    return cuda::load_switch_encoder(
        checkpoint, store, options,
        {.stream = stream_.get(), .blas = blas_.get(), .device = device_, .pinned = pinned_, .host = host});
  }

 private:
  cuda::DeviceMemory device_;
  cuda::PinnedMemory pinned_;
  cuda::Stream stream_;
  cuda::BlasHandle blas_;
};

}  // namespace

Result<std::unique_ptr<DeviceServing>> make_device_serving() {
  if (Status status = cuda::require_device(); !status) {
    return std::move(status).error().with_context("--device cuda: no NVIDIA GPU, or no driver for it");
  }
  SIDA_TRY_ASSIGN(auto stream, cuda::Stream::create());
  SIDA_TRY_ASSIGN(auto blas, cuda::BlasHandle::create());
  return std::unique_ptr<DeviceServing>(std::make_unique<CudaServing>(std::move(stream), std::move(blas)));
}

}  // namespace sida::cli
