#pragma once

#include <cstdint>
#include <memory>

#include "sida/core/api.hpp"
#include "sida/core/memory.hpp"
#include "sida/store/expert_store.hpp"
#include "sida/store/fast_tier.hpp"

namespace sida::inline v0::cuda {

struct DeviceTierOptions {
  /// Whether the host store's arena is registered with CUDA (it came from `PinnedMemory`, say). Where it isn't, each
  /// copy goes through a pinned buffer of one record, `kCopyThreads` of them in all.
  bool host_is_pinned = true;
  /// For finding bugs: a slot is filled with 0xFF, NaN in every element type, before its copy.
  bool poison = false;
};

/// Copies that may be under way at once: enough to keep the link busy while a thread waits for its own. It waits in
/// cudaEventSynchronize, which keeps a processor busy.
inline constexpr unsigned kCopyThreads = 4;
/// Copies ahead of need that may be under way at once; the rest waits in the store, where a demand overtakes them. On
/// the link itself nothing overtakes: a stream's priority does not order copies.
inline constexpr unsigned kPrefetchCopies = 2;

/// Device memory filled from leases of `host`, a store of the same experts in host memory: disk → host → device. Each
/// fill is one cudaMemcpyAsync and one event on one of two streams of the tier's own; a reader's stream waits for the
/// events of what is still on its way, and a slot is refilled after the events of its readers.
/// A wave's stream may be any but cudaStreamPerThread, which is another in each thread.
/// Slots are one block of `memory` (device space). The tier works on the device that is current when the store is
/// opened. `host` and `memory` must outlive the tier. A fill waits for room in `host`, so whoever holds waves of it
/// must let go without the device store's help.
SIDA_API std::unique_ptr<FastTier> make_device_tier(ExpertStore& host, MemoryResource& memory,
                                                    DeviceTierOptions const& options = {});

}  // namespace sida::inline v0::cuda
