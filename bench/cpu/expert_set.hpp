#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "sida/core/dtype.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"

namespace sida::bench {

/// Experts of switch-base's shape with random weights, all in host memory.
class ExpertSet {
 public:
  static constexpr std::int64_t kModel = 768;
  static constexpr std::int64_t kHidden = 3072;

  static Result<ExpertSet> make(Dtype dtype, std::size_t count);

  std::size_t size() const noexcept { return records_.size(); }
  ExpertLayout const& layout() const noexcept { return layout_; }
  std::vector<std::byte const*> const& records() const noexcept { return records_; }
  void const* in(std::size_t expert) const noexcept { return records_[expert] + layout_.in; }    // [kHidden, kModel]
  void const* out(std::size_t expert) const noexcept { return records_[expert] + layout_.out; }  // [kModel, kHidden]

 private:
  explicit ExpertSet(ExpertLayout const& layout) : layout_(layout) {}

  ExpertLayout layout_;
  Buffer memory_;
  std::vector<std::byte const*> records_;
};

/// Memory that outlives every buffer of the bench.
HostMemory& host_memory();

/// Uniform in [-scale, scale), the same for the same seed.
std::vector<float> random_numbers(std::size_t count, float scale, std::uint64_t seed);

}  // namespace sida::bench
