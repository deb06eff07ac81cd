#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "sida/io/expert_source.hpp"

namespace sida::test {

/// Experts made up in memory: each record is filled with words that only this expert has.
class MemorySource : public ExpertSource {
 public:
  MemorySource(std::vector<std::uint32_t> experts_per_layer, std::size_t record_bytes)
      : experts_per_layer_(std::move(experts_per_layer)), record_bytes_(record_bytes) {}

  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return experts_per_layer_; }
  std::size_t record_bytes(ExpertId) const noexcept override { return record_bytes_; }
  Status read(ExpertId id, std::span<std::byte> dst) const override {
    reads_.fetch_add(1, std::memory_order_relaxed);
    if (delay_.count() > 0) std::this_thread::sleep_for(delay_);
    fill(id, dst.first(record_bytes_));
    return {};
  }

  static std::uint64_t word(ExpertId id) {
    return (std::uint64_t{id.layer} << 32 | id.expert) * 0x9E3779B97F4A7C15U + 1;
  }
  static void fill(ExpertId id, std::span<std::byte> dst) {
    std::uint64_t const value = word(id);
    for (std::size_t i = 0; i < dst.size(); i += sizeof value) {
      std::memcpy(dst.data() + i, &value, std::min(sizeof value, dst.size() - i));
    }
  }
  /// Whether `data` holds exactly the record of `id`.
  bool holds(ExpertId id, std::byte const* data) const {
    std::vector<std::byte> expected(record_bytes_);
    fill(id, expected);
    return std::memcmp(expected.data(), data, record_bytes_) == 0;
  }

  void set_delay(std::chrono::microseconds delay) { delay_ = delay; }
  std::uint64_t reads() const { return reads_.load(std::memory_order_relaxed); }

 private:
  std::vector<std::uint32_t> experts_per_layer_;
  std::size_t record_bytes_;
  std::chrono::microseconds delay_{0};
  mutable std::atomic<std::uint64_t> reads_{0};
};

}  // namespace sida::test
