// FIFO, LRU and NextUse: policies that look at when an expert came, was used, or will be.
#include <utility>

#include "policy/policies.hpp"

namespace sida::inline v0 {
namespace {

/// The paper's: who came first leaves first, used or not.
class Fifo final : public RecencyBase {
 public:
  explicit Fifo(PolicyOptions const& options) : RecencyBase(options) {
    arrival_.resize(
        std::accumulate(options.experts_per_layer.begin(), options.experts_per_layer.end(), std::size_t{0}));
  }
  std::string_view name() const noexcept override { return "fifo"; }
  void insert(ExpertIndex expert) override {
    RecencyBase::insert(expert);
    arrival_[expert] = ++arrivals_;
  }
  ExpertIndex choose_victim(std::span<ExpertIndex const> candidates, Horizon const&) const override {
    return least(candidates, [&](ExpertIndex expert) { return arrival_[expert]; });
  }

 private:
  std::vector<std::uint64_t> arrival_;
  std::uint64_t arrivals_ = 0;
};

class Lru final : public RecencyBase {
 public:
  using RecencyBase::RecencyBase;
  std::string_view name() const noexcept override { return "lru"; }
  ExpertIndex choose_victim(std::span<ExpertIndex const> candidates, Horizon const&) const override {
    return least(candidates, [&](ExpertIndex expert) { return last_use(expert); });
  }
};

/// Evicts what the plan needs last; among experts that no plan names, the least recently used.
class NextUse final : public RecencyBase {
 public:
  using RecencyBase::RecencyBase;
  std::string_view name() const noexcept override { return "next-use"; }
  ExpertIndex choose_victim(std::span<ExpertIndex const> candidates, Horizon const& horizon) const override {
    return least(candidates, [&](ExpertIndex expert) {
      return std::pair(Horizon::kNever - horizon.next_use(expert), last_use(expert));
    });
  }
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_fifo(PolicyOptions const& options) { return std::make_unique<Fifo>(options); }
std::unique_ptr<EvictionPolicy> make_lru(PolicyOptions const& options) { return std::make_unique<Lru>(options); }
std::unique_ptr<EvictionPolicy> make_next_use(PolicyOptions const& options) {
  return std::make_unique<NextUse>(options);
}

}  // namespace sida::inline v0
