#pragma once

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "sida/policy/eviction_policy.hpp"

namespace sida::inline v0 {

std::unique_ptr<EvictionPolicy> make_fifo(PolicyOptions const& options);
std::unique_ptr<EvictionPolicy> make_lru(PolicyOptions const& options);
std::unique_ptr<EvictionPolicy> make_lfu(PolicyOptions const& options);
std::unique_ptr<EvictionPolicy> make_lfru(PolicyOptions const& options);
std::unique_ptr<EvictionPolicy> make_next_use(PolicyOptions const& options);

/// What every policy keeps: when each expert was touched or inserted last.
class RecencyBase : public EvictionPolicy {
 public:
  explicit RecencyBase(PolicyOptions const& options)
      : last_use_(std::accumulate(options.experts_per_layer.begin(), options.experts_per_layer.end(), 0U), 0) {}

  void touch(std::span<ExpertIndex const> experts) override {
    ++now_;
    for (ExpertIndex const expert : experts) last_use_[expert] = now_;
  }
  void insert(ExpertIndex expert) override { last_use_[expert] = now_; }
  void erase(ExpertIndex) override {}
  std::uint64_t last_use(ExpertIndex expert) const noexcept override { return last_use_[expert]; }

 protected:
  /// The candidate with the least `key(expert)`, the lowest among equals.
  template <class KeyOf>
  static ExpertIndex least(std::span<ExpertIndex const> candidates, KeyOf key) {
    ExpertIndex best = candidates.front();
    auto best_key = key(best);
    for (ExpertIndex const expert : candidates.subspan(1)) {
      if (auto const candidate_key = key(expert); candidate_key < best_key) {
        best = expert;
        best_key = candidate_key;
      }
    }
    return best;
  }

 private:
  std::vector<std::uint64_t> last_use_;
  std::uint64_t now_ = 0;
};

}  // namespace sida::inline v0
