#include "sida/predict/hit_rate.hpp"

#include <algorithm>

namespace sida::inline v0 {
namespace {

std::optional<double> mean_rate(std::vector<HitRates::Layer> const& layers, std::uint64_t HitRates::Layer::*hits) {
  double sum = 0;
  int counted = 0;
  for (HitRates::Layer const& layer : layers) {
    if (layer.tokens == 0) continue;
    sum += static_cast<double>(layer.*hits) / static_cast<double>(layer.tokens);
    ++counted;
  }
  return counted == 0 ? std::nullopt : std::optional(sum / counted);
}

}  // namespace

std::optional<double> HitRates::mean_top1() const noexcept { return mean_rate(layers, &Layer::top1); }
std::optional<double> HitRates::mean_top2() const noexcept { return mean_rate(layers, &Layer::top2); }
std::optional<double> HitRates::mean_top3() const noexcept { return mean_rate(layers, &Layer::top3); }

void HitRateMeter::planned(std::uint64_t batch, ActivationPlan const& plan) {
  Guesses guesses{.k = plan.k, .layers = {}};
  bool any = false;
  for (auto const& layer : plan.layers) {
    guesses.layers.push_back(layer.experts);
    any = any || !layer.experts.empty();
  }
  if (!any) return;
  std::lock_guard const lock(mutex_);
  pending_.insert_or_assign(batch, std::move(guesses));
}

void HitRateMeter::observed(std::uint64_t batch, std::uint32_t layer, Matrix<std::uint16_t const> experts) {
  std::lock_guard const lock(mutex_);
  auto const found = pending_.find(batch);
  if (found == pending_.end()) return;
  Guesses const& guesses = found->second;
  if (layer < guesses.layers.size() && std::ssize(guesses.layers[layer]) == experts.rows * guesses.k) {
    if (rates_.layers.size() <= layer) rates_.layers.resize(layer + std::size_t{1});
    HitRates::Layer& rates = rates_.layers[layer];
    for (std::int64_t token = 0; token < experts.rows; ++token) {
      std::uint16_t const chosen = experts(token, 0);
      if (chosen == kNoExpert) continue;
      auto const first = guesses.layers[layer].begin() + token * guesses.k;
      auto const rank = std::find(first, first + guesses.k, chosen) - first;
      ++rates.tokens;
      if (rank == guesses.k) continue;  // not guessed
      if (rank < 1) ++rates.top1;
      if (rank < 2) ++rates.top2;
      if (rank < 3) ++rates.top3;
    }
  }
  if (layer + std::size_t{1} >= guesses.layers.size()) pending_.erase(found);
}

HitRates HitRateMeter::rates() const {
  std::lock_guard const lock(mutex_);
  return rates_;
}

}  // namespace sida::inline v0
