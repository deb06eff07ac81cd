#include "cli/hit_rate_report.hpp"

#include <cstddef>

namespace sida::cli {

void add_hit_rates(Report& report, HitRates const& rates, std::string const& prefix) {
  if (auto const rate = rates.mean_top1()) report.add(prefix + "hit_rate_top1", *rate);
  if (auto const rate = rates.mean_top2()) report.add(prefix + "hit_rate_top2", *rate);
  if (auto const rate = rates.mean_top3()) report.add(prefix + "hit_rate_top3", *rate);
  for (std::size_t i = 0; i < rates.layers.size(); ++i) {
    HitRates::Layer const& layer = rates.layers[i];
    std::string const suffix = "_layer_" + std::to_string(i);
    report.add(prefix + "hit_rate_top1" + suffix, ratio(layer.top1, layer.tokens));
    report.add(prefix + "hit_rate_top2" + suffix, ratio(layer.top2, layer.tokens));
    report.add(prefix + "hit_rate_top3" + suffix, ratio(layer.top3, layer.tokens));
  }
}

}  // namespace sida::cli
