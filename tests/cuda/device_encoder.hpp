#pragma once

#include <memory>
#include <string>

#include "sida/cuda/device_tier.hpp"
#include "sida/cuda/handles.hpp"
#include "sida/cuda/memory.hpp"
#include "sida/cuda/switch_encoder.hpp"
#include "tests/cuda/device_fixture.hpp"
#include "tests/model/encoder_fixture.hpp"
#include "tests/model/random_checkpoint.hpp"

namespace sida::testing {

/// Quick on the host, and cuBLAS takes part. One MoE layer in two.
inline SwitchConfig tiny_config(std::int64_t layers, std::uint32_t experts) {
  SwitchConfig config = small_config();
  config.d_model = 16;
  config.d_kv = 8;
  config.num_heads = 2;
  config.d_ff = 24;
  config.num_layers = static_cast<decltype(config.num_layers)>(layers);
  config.num_experts = experts;
  return config;
}

/// Slots 0: room for all experts.
struct DeviceSetup {
  std::uint64_t slots = 0;
  std::uint64_t host_slots = 0;
  PolicyKind policy = PolicyKind::lfru;
  std::uint32_t prefetch_depth = StoreOptions{}.prefetch_depth;
  bool host_is_pinned = true;
};

/// An encoder on a GPU, and its stores.
struct DeviceEncoder : test::Lent {
  SwitchCheckpoint checkpoint;
  std::unique_ptr<ExpertStore> host_store;
  std::unique_ptr<ExpertStore> store;
  std::unique_ptr<SwitchEncoder> encoder;

  explicit DeviceEncoder(std::string const& path, DeviceSetup const& setup = {}, SwitchOptions const& options = {})
      : checkpoint(value_of(open_switch_checkpoint(path, ReadPath::pread))) {
    auto const budget = [&](std::uint64_t count) {
      return slot_bytes_for(checkpoint.layout.size_bytes) * (count == 0 ? checkpoint.expert_count() : count);
    };
    MemoryResource& memory = setup.host_is_pinned ? static_cast<MemoryResource&>(pinned) : host_memory;
    host_store = value_of(ExpertStore::open(*checkpoint.experts, make_host_tier(checkpoint.experts, memory, 2),
                                            {.budget_bytes = budget(setup.host_slots), .policy = setup.policy}));
    auto tier = cuda::make_device_tier(*host_store, device, {.host_is_pinned = setup.host_is_pinned, .poison = true});
    store = value_of(ExpertStore::open(
        *checkpoint.experts, std::move(tier),
        {.budget_bytes = budget(setup.slots), .policy = setup.policy, .prefetch_depth = setup.prefetch_depth}));
    encoder = value_of(cuda::load_switch_encoder(
        checkpoint, *store, options,
        {.stream = stream.get(), .blas = blas.get(), .device = device, .pinned = pinned, .host = host_memory}));
  }
};

}  // namespace sida::testing
