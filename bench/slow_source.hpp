#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "sida/io/expert_source.hpp"

namespace sida::bench {

/// How slow a disk is. Without a bandwidth it adds nothing.
struct DiskSpeed {
  double bytes_per_s = 0;
  std::chrono::microseconds latency{0};
};

/// The timetable of a disk that doesn't exist: after its latency a read waits for those before it, and then takes the
/// disk for bytes / bandwidth. Latencies overlap, transfers don't. Thread-safe.
class SlowDisk {
 public:
  using Clock = std::chrono::steady_clock;

  /// Holds for reads from now on.
  void set(DiskSpeed speed);
  DiskSpeed speed() const;
  /// Books a read of `bytes` that is asked for at `now`. @return when its last byte is there.
  Clock::time_point book(std::uint64_t bytes, Clock::time_point now);

 private:
  mutable std::mutex mutex_;
  DiskSpeed speed_;
  Clock::time_point busy_until_{};
};

/// The experts of another source, no sooner than a slow disk would have them. Bytes and errors are those of the other
/// source; waiting is sleep, so that the processor is free meanwhile. Sources may share a disk.
class SlowSource final : public ExpertSource {
 public:
  SlowSource(std::shared_ptr<ExpertSource const> experts, std::shared_ptr<SlowDisk> disk)
      : experts_(std::move(experts)), disk_(std::move(disk)) {}

  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return experts_->experts_per_layer(); }
  std::size_t record_bytes(ExpertId id) const noexcept override { return experts_->record_bytes(id); }
  Status read(ExpertId id, std::span<std::byte> dst) const override;
  ReadStats read_stats() const noexcept override { return experts_->read_stats(); }

 private:
  std::shared_ptr<ExpertSource const> experts_;
  std::shared_ptr<SlowDisk> disk_;
};

}  // namespace sida::bench
