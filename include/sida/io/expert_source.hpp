#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "sida/core/api.hpp"
#include "sida/core/expert_id.hpp"
#include "sida/core/result.hpp"
#include "sida/io/file.hpp"

namespace sida::inline v0 {

/// Where experts come from: a file format, or an engine's own mapping. The virtual seam at I/O rate.
/// All members are called from several threads at once.
class SIDA_API ExpertSource {
 public:
  virtual ~ExpertSource() = default;

  /// Experts of each MoE layer, e.g. {64, 64, 64}. Constant over the life of the source.
  virtual std::span<std::uint32_t const> experts_per_layer() const noexcept = 0;

  /// Bytes of one expert's record (the layout is the reader's business; sida's own is `ExpertLayout`).
  /// Precondition: `id` names an expert of this source.
  virtual std::size_t record_bytes(ExpertId id) const noexcept = 0;

  /// Reads one record to the start of `dst`; blocks. `dst` is aligned to 4 KiB and holds at least
  /// slot_bytes_for(record_bytes(id)) bytes; what stands after the record is unspecified.
  /// @return io, corrupt: naming file, expert and offset. A later call may succeed.
  virtual Status read(ExpertId id, std::span<std::byte> dst) const = 0;

  /// Bytes read from disk so far; zeros where the source doesn't count.
  virtual ReadStats read_stats() const noexcept { return {}; }
};

}  // namespace sida::inline v0
