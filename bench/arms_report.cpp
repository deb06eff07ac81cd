#include "bench/arms_report.hpp"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <utility>

#include <nlohmann/json.hpp>

#include "cli/report.hpp"

namespace sida::bench {
namespace {

using cli::format_fixed;
using Json = nlohmann::ordered_json;

constexpr double kMib = 1024.0 * 1024.0;
constexpr double kMega = 1e6;

double median_of(std::vector<ArmRun> const& runs, std::function<double(ArmRun const&)> const& value) {
  std::vector<double> values;
  for (auto const& run : runs) values.push_back(value(run));
  return Spread::of(std::move(values)).median;
}

std::string disk_text(Experiment const& experiment) {
  double const measured = experiment.fill_bytes_per_s / kMega;
  if (experiment.disk.bytes_per_s <= 0) return "as it is, a store fills at " + format_fixed(measured, 0) + " MB/s";
  return "slowed to " + format_fixed(experiment.disk.bytes_per_s / kMega, 1) + " MB/s and " +
         std::to_string(experiment.disk.latency.count()) + " us (" + experiment.slow + "), a store fills at " +
         format_fixed(measured, 1) + " MB/s";
}

std::string setting_text(Experiment const& experiment) {
  auto const& settings = experiment.settings;
  auto const file = std::filesystem::path(settings.data).filename().string();
  return file + ": " + std::to_string(experiment.rows) + " rows, batch 1, lookahead " +
         std::to_string(settings.lookahead) + ", prefetch depth " + std::to_string(settings.prefetch_depth) + ", " +
         std::to_string(experiment.slots[lru]) + " of " + std::to_string(experiment.slots[all_resident]) +
         " experts in memory, " + std::to_string(settings.threads) +
         (settings.threads == 1 ? " thread, " : " threads, ") + std::to_string(experiment.rounds()) +
         (experiment.rounds() == 1 ? " round" : " rounds");
}

std::string spread_text(Spread const& spread, int places) {
  return format_fixed(spread.median, places) + " (" + format_fixed(spread.least, places) + ".." +
         format_fixed(spread.most, places) + ")";
}

Json spread_json(Spread const& spread) {
  return {{"median", spread.median}, {"min", spread.least}, {"max", spread.most}};
}

Json arm_json(ArmSummary const& arm, std::vector<ArmRun> const& runs, std::uint32_t slots) {
  Json walls = Json::array();
  for (auto const& run : runs) walls.push_back(run.wall_s);
  return {{"arm", arm.name},
          {"slots", slots},
          {"wall_s", spread_json(arm.wall_s)},
          {"to_all_resident", spread_json(arm.to_all_resident)},
          {"expert_bytes_read", arm.bytes_read},
          {"min_expert_bytes_read", arm.min_bytes},
          {"expert_hits", arm.hits},
          {"expert_late_hits", arm.late_hits},
          {"expert_misses", arm.misses},
          {"stall_s", arm.stall_s},
          {"compute_s", arm.compute_s},
          {"hash_s", arm.hash_s},
          {"queue_wait_s", arm.queue_s},
          {"bound_s", arm.bound_s},
          {"wall_to_bound", arm.wall_s.median / arm.bound_s},
          {"logits_sha256", arm.logits_sha256},
          {"walls_s", walls}};
}

}  // namespace

Spread Spread::of(std::vector<double> values) {
  std::ranges::sort(values);
  std::size_t const middle = values.size() / 2;
  double const median = values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {.median = median, .least = values.front(), .most = values.back()};
}

Spread wall_ratio(Experiment const& experiment, ArmPlace arm, ArmPlace reference) {
  std::vector<double> ratios;
  for (std::size_t round = 0; round < experiment.rounds(); ++round) {
    ratios.push_back(experiment.runs[arm][round].wall_s / experiment.runs[reference][round].wall_s);
  }
  return Spread::of(std::move(ratios));
}

bool same_answers(Experiment const& experiment) {
  std::string const& first = experiment.runs.front().front().logits_sha256;
  return std::ranges::all_of(experiment.runs, [&](auto const& runs) {
    return std::ranges::all_of(runs, [&](ArmRun const& run) { return run.logits_sha256 == first; });
  });
}

std::vector<ArmSummary> summarise(Experiment const& experiment) {
  std::vector<ArmSummary> arms;
  auto const slot_bytes = static_cast<double>(experiment.slot_bytes);
  for (std::size_t i = 0; i < experiment.runs.size(); ++i) {
    auto const& runs = experiment.runs[i];
    auto const count = [&](auto StoreStats::*counter) {
      return median_of(runs, [counter](ArmRun const& run) { return static_cast<double>(run.store.*counter); });
    };
    std::vector<double> walls;
    for (auto const& run : runs) walls.push_back(run.wall_s);
    ArmSummary arm;
    arm.name = arm_specs()[i].name;
    arm.wall_s = Spread::of(std::move(walls));
    arm.to_all_resident = wall_ratio(experiment, static_cast<ArmPlace>(i), all_resident);
    arm.bytes_read = count(&StoreStats::bytes_loaded);
    arm.min_bytes = static_cast<double>(runs.front().min_loads) * slot_bytes;  // the demands are always the same
    arm.hits = count(&StoreStats::hits);
    arm.late_hits = count(&StoreStats::late_hits);
    arm.misses = count(&StoreStats::misses);
    arm.stall_s = median_of(runs, [](ArmRun const& run) { return run.stall_s(); });
    arm.compute_s = median_of(runs, [](ArmRun const& run) { return run.compute_s(); });
    arm.hash_s = median_of(runs, [](ArmRun const& run) { return static_cast<double>(run.pipeline.predict_ns) * 1e-9; });
    arm.queue_s =
        median_of(runs, [](ArmRun const& run) { return static_cast<double>(run.pipeline.plan_wait_ns) * 1e-9; });
    arm.logits_sha256 = runs.front().logits_sha256;
    arms.push_back(std::move(arm));
  }
  for (auto& arm : arms) {
    arm.bound_s = std::max(arms[all_resident].wall_s.median, arm.min_bytes / experiment.bytes_per_s());
  }
  return arms;
}

std::string make_table(Experiment const& experiment) {
  cli::Grid rows({"arm", "wall s (min..max)", "x resident", "read MiB", "MIN MiB", "hits", "late", "misses", "stall s",
                  "compute s", "bound s", "x bound", "logits"});
  for (auto const& arm : summarise(experiment)) {
    rows.row({arm.name, spread_text(arm.wall_s, 3), format_fixed(arm.to_all_resident.median, 2),
              format_fixed(arm.bytes_read / kMib, 1), format_fixed(arm.min_bytes / kMib, 1), format_fixed(arm.hits, 0),
              format_fixed(arm.late_hits, 0), format_fixed(arm.misses, 0), format_fixed(arm.stall_s, 3),
              format_fixed(arm.compute_s, 3), format_fixed(arm.bound_s, 3),
              format_fixed(arm.wall_s.median / arm.bound_s, 2), arm.logits_sha256.substr(0, 8)});
  }
  std::string text = setting_text(experiment) + "\ndisk: " + disk_text(experiment) + "\n\n" + rows.text() + "\n";
  auto const ratio = [&](ArmPlace arm, ArmPlace reference) {
    text += arm_specs()[arm].name + " / " + arm_specs()[reference].name + ": " +
            spread_text(wall_ratio(experiment, arm, reference), 3) + "\n";
  };
  ratio(by_oracle, lru);
  ratio(by_hash, lru);
  ratio(by_hash, lfru);
  return text + (same_answers(experiment)
                     ? "logits: the same in all runs, sha256 " + experiment.runs.front().front().logits_sha256 + "\n"
                     : "logits: DIFFERENT between runs\n");
}

std::string make_json(Experiment const& experiment) {
  Json arms = Json::array();
  auto const summaries = summarise(experiment);
  for (std::size_t i = 0; i < summaries.size(); ++i) {
    arms.push_back(arm_json(summaries[i], experiment.runs[i], experiment.slots[i]));
  }
  Json const json = {{"model", experiment.model},
                     {"data", experiment.settings.data},
                     {"rows", experiment.rows},
                     {"rounds", experiment.rounds()},
                     {"batch", 1},
                     {"lookahead", experiment.settings.lookahead},
                     {"prefetch_depth", experiment.settings.prefetch_depth},
                     {"likely", experiment.settings.likely},
                     {"threads", experiment.settings.threads},
                     {"slot_bytes", experiment.slot_bytes},
                     {"slow", experiment.slow},
                     {"disk_bytes_per_s", experiment.bytes_per_s()},
                     {"disk_latency_us", experiment.disk.latency.count()},
                     {"fill_bytes_per_s", experiment.fill_bytes_per_s},
                     {"same_logits", same_answers(experiment)},
                     {"oracle_to_lru", spread_json(wall_ratio(experiment, by_oracle, lru))},
                     {"hash_to_lru", spread_json(wall_ratio(experiment, by_hash, lru))},
                     {"arms", arms}};
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

BarChart make_chart(Experiment const& experiment) {
  auto const arms = summarise(experiment);
  BarChart chart{.title = "One model, eight ways to serve it",
                 .subtitles = {setting_text(experiment), "Disk: " + disk_text(experiment)},
                 .first_name = "computing",
                 .second_name = "waiting for experts",
                 .mark_name = "bound: max(all resident, MIN bytes / bandwidth)",
                 .axis_name = "wall time, s (median)",
                 .bars = {}};
  std::vector<double> walls;
  for (auto const& arm : arms) {
    walls.push_back(arm.wall_s.median);
    chart.bars.push_back({.label = arm.name,
                          .first = arm.compute_s,
                          .second = arm.wall_s.median - arm.compute_s,
                          .mark = arm.bound_s,
                          .note = format_fixed(arm.wall_s.median, 2) + " s, " +
                                  format_fixed(arm.to_all_resident.median, 2) + "x all resident"});
  }
  // One bar that dwarfs the others is cut, so that those can be compared.
  constexpr double kMargin = 1.05;
  std::ranges::sort(walls, std::greater<>());
  bool const dwarfed = walls[0] > 1.6 * walls[1];
  chart.axis_end = kMargin * (dwarfed ? walls[1] : walls[0]);
  return chart;
}

}  // namespace sida::bench
