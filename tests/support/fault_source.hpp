#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sida/core/expert_layout.hpp"
#include "sida/io/expert_source.hpp"

namespace sida::testing {

/// Experts in memory whose bytes follow from their id alone: 64-bit words that differ by expert and place.
class PatternSource final : public ExpertSource {
 public:
  PatternSource(std::vector<std::uint32_t> experts_per_layer, std::size_t record_bytes)
      : experts_per_layer_(std::move(experts_per_layer)), record_bytes_(record_bytes) {}

  /// What `read` puts into byte `index` of the record of `id`.
  static std::byte byte_at(ExpertId id, std::size_t index) noexcept {
    std::uint64_t word = (std::uint64_t{id.layer} << 40 | std::uint64_t{id.expert} << 20 | index / 8) + 1;
    word = (word ^ word >> 31) * 0x9E3779B97F4A7C15U;
    return static_cast<std::byte>(word >> (index % 8 * 8));
  }
  static bool holds(ExpertId id, std::span<std::byte const> record) noexcept {
    for (std::size_t i = 0; i < record.size(); ++i) {
      if (record[i] != byte_at(id, i)) return false;
    }
    return true;
  }

  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return experts_per_layer_; }
  std::size_t record_bytes(ExpertId) const noexcept override { return record_bytes_; }
  Status read(ExpertId id, std::span<std::byte> dst) const override {
    if (dst.size() < slot_bytes_for(record_bytes_)) return Error(Errc::invalid_argument, "dst is too small");
    for (std::size_t i = 0; i < record_bytes_; ++i) dst[i] = byte_at(id, i);
    return {};
  }

 private:
  std::vector<std::uint32_t> experts_per_layer_;
  std::size_t record_bytes_;
};

/// What goes wrong with a read.
enum class Fault : std::uint8_t {
  none,
  fails,        ///< io, `dst` untouched
  short_read,   ///< io, after half of the record is in `dst`
  wrong_bytes,  ///< corrupt, with the whole record but one flipped byte in `dst`: what a checksum finds
  silent,       ///< ok, with one flipped byte: what no source may do, and a test may look for
};

/// Passes reads on to another source, with faults where the test asks for them. Thread-safe.
class FaultSource final : public ExpertSource {
 public:
  /// `inner` must outlive this.
  explicit FaultSource(ExpertSource const& inner) : inner_(inner) {}

  /// The n-th read from now on, counted from 0, has this fault, once.
  void fault_call(std::uint64_t n, Fault fault) {
    std::lock_guard const lock(mutex_);
    by_call_[calls_ + n] = fault;
  }
  /// Reads of `id` have this fault, the next `times` times.
  void fault_expert(ExpertId id, Fault fault, std::uint64_t times = UINT64_MAX) {
    std::lock_guard const lock(mutex_);
    by_expert_[id] = {fault, times};
  }
  /// Reads wait, after being counted, until `release`.
  void hold() {
    std::lock_guard const lock(mutex_);
    held_ = true;
  }
  void release() {
    {
      std::lock_guard const lock(mutex_);
      held_ = false;
    }
    changed_.notify_all();
  }
  /// Waits until `count` reads are being held.
  void wait_for_held(std::size_t count) const {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ >= count; });
  }

  std::uint64_t calls() const {
    std::lock_guard const lock(mutex_);
    return calls_;
  }
  /// Ids in the order in which their reads began.
  std::vector<ExpertId> log() const {
    std::lock_guard const lock(mutex_);
    return log_;
  }

  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return inner_.experts_per_layer(); }
  std::size_t record_bytes(ExpertId id) const noexcept override { return inner_.record_bytes(id); }
  ReadStats read_stats() const noexcept override { return inner_.read_stats(); }

  Status read(ExpertId id, std::span<std::byte> dst) const override {
    switch (begin(id)) {
      case Fault::none: break;
      case Fault::fails: return Error(Errc::io, to_string(id) + ": injected failure");
      case Fault::short_read: return read_short(id, dst);
      case Fault::wrong_bytes:
        if (Status status = read_flipped(id, dst); !status) return status;
        return Error(Errc::corrupt, to_string(id) + ": injected wrong bytes");
      case Fault::silent: return read_flipped(id, dst);
    }
    return inner_.read(id, dst);
  }

 private:
  struct Planned {
    Fault fault = Fault::none;
    std::uint64_t times = 0;
  };

  /// Counts the read, waits while held, and says what goes wrong.
  Fault begin(ExpertId id) const {
    std::unique_lock lock(mutex_);
    Fault fault = Fault::none;
    if (auto const found = by_expert_.find(id); found != by_expert_.end() && found->second.times > 0) {
      --found->second.times;
      fault = found->second.fault;
    }
    if (auto const found = by_call_.find(calls_); found != by_call_.end()) fault = found->second;
    ++calls_;
    log_.push_back(id);
    if (held_) {
      ++waiting_;
      changed_.notify_all();
      changed_.wait(lock, [&] { return !held_; });
      --waiting_;
    }
    return fault;
  }

  Status read_short(ExpertId id, std::span<std::byte> dst) const {
    std::vector<std::byte> const before(dst.begin(), dst.end());
    if (Status status = inner_.read(id, dst); !status) return status;
    auto const half = static_cast<std::ptrdiff_t>(record_bytes(id) / 2);
    std::copy(before.begin() + half, before.end(), dst.begin() + half);
    return Error(Errc::io, to_string(id) + ": injected short read");
  }

  Status read_flipped(ExpertId id, std::span<std::byte> dst) const {
    if (Status status = inner_.read(id, dst); !status) return status;
    dst[record_bytes(id) / 2] ^= std::byte{0x10};
    return {};
  }

  ExpertSource const& inner_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable std::uint64_t calls_ = 0;
  mutable std::vector<ExpertId> log_;
  mutable std::map<std::uint64_t, Fault> by_call_;
  mutable std::map<ExpertId, Planned> by_expert_;
  mutable std::size_t waiting_ = 0;
  bool held_ = false;
};

}  // namespace sida::testing
