#pragma once

#include <memory>
#include <string>

#include "sida/cuda/device_tier.hpp"
#include "sida/cuda/handles.hpp"
#include "sida/cuda/memory.hpp"
#include "sida/cuda/switch_encoder.hpp"
#include "tests/model/encoder_fixture.hpp"

namespace sida::testing {

/// An encoder on a GPU, and its stores. `slots` 0: room for all experts.
struct DeviceEncoder {
  SwitchCheckpoint checkpoint;
  HostMemory host_memory;
  cuda::PinnedMemory pinned;
  cuda::DeviceMemory device;
  cuda::Stream stream = value_of(cuda::Stream::create());
  cuda::BlasHandle blas = value_of(cuda::BlasHandle::create());
  std::unique_ptr<ExpertStore> host_store;
  std::unique_ptr<ExpertStore> store;
  std::unique_ptr<SwitchEncoder> encoder;

  explicit DeviceEncoder(std::string const& path, std::uint64_t slots = 0, std::uint64_t host_slots = 0,
                         SwitchOptions const& options = {}, PolicyKind policy = PolicyKind::lfru)
      : checkpoint(value_of(open_switch_checkpoint(path, ReadPath::pread))) {
    auto const budget = [&](std::uint64_t count) {
      return slot_bytes_for(checkpoint.layout.size_bytes) * (count == 0 ? checkpoint.expert_count() : count);
    };
    host_store = value_of(ExpertStore::open(*checkpoint.experts, make_host_tier(checkpoint.experts, pinned, 2),
                                            {.budget_bytes = budget(host_slots), .policy = policy}));
    store =
        value_of(ExpertStore::open(*checkpoint.experts, cuda::make_device_tier(*host_store, device, {.poison = true}),
                                   {.budget_bytes = budget(slots), .policy = policy}));
    encoder = value_of(cuda::load_switch_encoder(
        checkpoint, *store, options,
        {.stream = stream.get(), .blas = blas.get(), .device = device, .pinned = pinned, .host = host_memory}));
  }
};

}  // namespace sida::testing
