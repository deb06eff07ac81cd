// LFU and LFRU: policies that count how often an expert was used, per layer, with decay.
#include <array>
#include <cmath>
#include <cstddef>
#include <utility>

#include "policy/policies.hpp"

namespace sida::inline v0 {
namespace {

/// Decayed counts. Each layer has a clock of its own, which ticks at each of its events, so that a count means
/// the same for layers that run often and seldom.
class FrequencyBase : public RecencyBase {
 public:
  explicit FrequencyBase(PolicyOptions const& options)
      : RecencyBase(options), decay_(options.decay), layer_events_(options.experts_per_layer.size(), 0) {
    for (std::size_t age = 0; age < recent_decays_.size(); ++age) recent_decays_[age] = decay_to_the(age);
    for (std::uint32_t layer = 0; layer < options.experts_per_layer.size(); ++layer) {
      layer_of_.insert(layer_of_.end(), options.experts_per_layer[layer], layer);
    }
    uses_.resize(layer_of_.size());
  }

  void touch(std::span<ExpertIndex const> experts) override {
    RecencyBase::touch(experts);
    // An event is one layer's; one that spans several (a caller may) ticks each.
    std::uint32_t ticked = static_cast<std::uint32_t>(-1);
    for (ExpertIndex const expert : experts) {
      std::uint32_t const layer = layer_of_[expert];
      if (layer != ticked) {
        ++layer_events_[layer];
        ticked = layer;
      }
      uses_[expert] = {frequency(expert) + 1.0, layer_events_[layer]};
    }
  }

 protected:
  /// Uses of `expert`, each worth decay^(events of its layer since).
  double frequency(ExpertIndex expert) const {
    std::uint64_t const events = age(expert);
    return uses_[expert].count * (events < recent_decays_.size() ? recent_decays_[events] : decay_to_the(events));
  }
  /// Events of its layer since `expert` was used last.
  std::uint64_t age(ExpertIndex expert) const { return layer_events_[layer_of_[expert]] - uses_[expert].at; }
  std::uint32_t layer_of(ExpertIndex expert) const { return layer_of_[expert]; }
  std::uint32_t layers() const { return static_cast<std::uint32_t>(layer_events_.size()); }

 private:
  struct Uses {
    double count = 0.0;    // as of event `at` of its layer
    std::uint64_t at = 0;  // the layer's event of the last use
  };
  double decay_to_the(std::uint64_t events) const { return std::pow(decay_, static_cast<double>(events)); }

  double decay_;
  std::array<double, 64> recent_decays_{};   // of most ages that are asked for: a power is the dear part of a touch
  std::vector<std::uint32_t> layer_of_;      // per expert
  std::vector<std::uint64_t> layer_events_;  // per layer
  std::vector<Uses> uses_;                   // per expert
};

class Lfu final : public FrequencyBase {
 public:
  using FrequencyBase::FrequencyBase;
  std::string_view name() const noexcept override { return "lfu"; }
  ExpertIndex choose_victim(std::span<ExpertIndex const> candidates, Horizon const&) const override {
    return least(candidates, [&](ExpertIndex expert) { return std::pair(frequency(expert), last_use(expert)); });
  }
};

class Lfru final : public FrequencyBase {
 public:
  explicit Lfru(PolicyOptions const& options)
      : FrequencyBase(options),
        floor_(static_cast<std::uint32_t>(options.layer_floor * options.slots /
                                          std::max<double>(1.0, static_cast<double>(layers())))),
        residents_(layers(), 0) {}
  std::string_view name() const noexcept override { return "lfru"; }

  void insert(ExpertIndex expert) override {
    FrequencyBase::insert(expert);
    ++residents_[layer_of(expert)];
  }
  void erase(ExpertIndex expert) override {
    FrequencyBase::erase(expert);
    --residents_[layer_of(expert)];
  }

  ExpertIndex choose_victim(std::span<ExpertIndex const> candidates, Horizon const&) const override {
    return least(candidates, [&](ExpertIndex expert) {
      bool const floored = residents_[layer_of(expert)] <= floor_;
      return std::pair(floored, score(expert));
    });
  }

 private:
  double score(ExpertIndex expert) const { return frequency(expert) / (1.0 + static_cast<double>(age(expert))); }

  std::uint32_t floor_;                   // slots that a layer keeps while another has more
  std::vector<std::uint32_t> residents_;  // per layer
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_lfu(PolicyOptions const& options) { return std::make_unique<Lfu>(options); }
std::unique_ptr<EvictionPolicy> make_lfru(PolicyOptions const& options) { return std::make_unique<Lfru>(options); }

}  // namespace sida::inline v0
