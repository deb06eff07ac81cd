#pragma once

#include <string>

#include "cli/report.hpp"
#include "sida/predict/hit_rate.hpp"

namespace sida::cli {

/// Adds "<prefix>hit_rate_top1", "_top2" and "_top3", means over the MoE layers, and each again with "_layer_N".
/// Nothing where nothing was judged.
void add_hit_rates(Report& report, HitRates const& rates, std::string const& prefix);

}  // namespace sida::cli
