#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "sida/core/expert_layout.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/workspace.hpp"
#include "sida/io/expert_source.hpp"

namespace sida::test {

/// Memory aligned to 64 bytes, with guard bytes after it.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::size_t size) : size_(size), memory_(size + 128, std::byte{0xA5}) {}
  std::span<std::byte> bytes() {
    auto const address = reinterpret_cast<std::uintptr_t>(memory_.data());
    return {memory_.data() + (64 - address % 64) % 64, size_};
  }
  bool guard_is_intact() {
    std::byte const* const end = bytes().data() + size_;
    return std::all_of(end, static_cast<std::byte const*>(memory_.data() + memory_.size()),
                       [](std::byte b) { return b == std::byte{0xA5}; });
  }

 private:
  std::size_t size_;
  std::vector<std::byte> memory_;
};

inline std::vector<float> random_floats(std::int64_t count, std::mt19937& random, float scale = 1.0F) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

/// A finite half near `value`, by truncation: what matters is that reference and fast path read the same bits.
inline fp16 some_fp16(float value) {
  if (std::abs(value) < 0x1p-13F) return {};
  auto const bits = std::bit_cast<std::uint32_t>(value);
  return {static_cast<std::uint16_t>((bits >> 16 & 0x8000U) | (((bits & 0x7FFFFFFFU) - (112U << 23)) >> 13))};
}

inline std::vector<std::byte> random_record(ExpertLayout const& layout, std::mt19937& random) {
  std::vector<std::byte> record(layout.size_bytes);
  std::size_t const step = size_bytes(layout.shape.dtype);
  std::normal_distribution<float> normal(0, 1.0F / std::sqrt(static_cast<float>(layout.shape.d_model)));
  for (std::size_t at = 0; at + step <= record.size(); at += step) {
    float const value = normal(random);
    if (layout.shape.dtype == Dtype::f32) {
      std::memcpy(&record[at], &value, sizeof(value));
    } else if (layout.shape.dtype == Dtype::bf16) {
      bf16 const half = to_bf16(value);
      std::memcpy(&record[at], &half, sizeof(half));
    } else {
      fp16 const half = some_fp16(value);
      std::memcpy(&record[at], &half, sizeof(half));
    }
  }
  return record;
}

/// Records in memory, one layer; reads of one expert can be made to fail.
class MemorySource final : public ExpertSource {
 public:
  explicit MemorySource(std::vector<std::vector<std::byte>> records)
      : records_(std::move(records)), experts_{static_cast<std::uint32_t>(records_.size())} {}
  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return experts_; }
  std::size_t record_bytes(ExpertId id) const noexcept override { return records_[id.expert].size(); }
  Status read(ExpertId id, std::span<std::byte> dst) const override {
    if (static_cast<int>(id.expert) == failing_.load()) return {Errc::io, "made to fail: " + to_string(id)};
    std::copy(records_[id.expert].begin(), records_[id.expert].end(), dst.begin());
    return {};
  }
  void fail(int expert) { failing_ = expert; }  // -1: none
  std::vector<std::byte const*> pointers() const {
    std::vector<std::byte const*> all;
    for (auto const& record : records_) all.push_back(record.data());
    return all;
  }

 private:
  std::vector<std::vector<std::byte>> records_;
  std::vector<std::uint32_t> experts_;
  std::atomic<int> failing_ = -1;
};

}  // namespace sida::test
