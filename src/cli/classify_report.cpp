#include "cli/classify_report.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <sys/resource.h>

#include "cli/hit_rate_report.hpp"

namespace sida::cli {
namespace {

double per_second(std::uint64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

double stall_s(StoreStats const& stats) { return static_cast<double>(stats.stall_ns) * 1e-9; }

void add_store(Report& report, StoreStats const& stats, ReadStats const& reads) {
  report.add("events", stats.events);
  report.add("expert_hits", stats.hits);
  report.add("expert_late_hits", stats.late_hits);
  report.add("expert_misses", stats.misses);
  report.add("evictions", stats.evictions);
  report.add("failed_loads", stats.failed_loads);
  report.add("planned_events", stats.planned_events);
  report.add("prefetches", stats.prefetches);
  report.add("prefetch_used", stats.prefetches_used);
  report.add("prefetch_wasted", stats.prefetches_wasted);
  report.add("mispredicted_loads", stats.mispredicted_loads);
  report.add("disk_bytes_read", reads.bytes_read);
  report.add("overread_bytes", reads.overread_bytes);
  report.add("stall_s", stall_s(stats));
}

double seconds(std::uint64_t nanoseconds) { return static_cast<double>(nanoseconds) * 1e-9; }

void add_predictor(Report& report, RunSettings const& settings) {
  report.add("predictor", settings.predictor);
  if (settings.mode == RunMode::predicted) {
    report.add("top_k", settings.hash.top_k);
    report.add("renormalised", settings.hash.renormalise ? "yes" : "no");
  } else {
    report.add("likely", settings.hash.likely);
  }
}

std::string least_text(RunAccount const& account, ServedModel const& served) {
  if (!account.min_loads) return "";
  std::uint64_t const least = *account.min_loads * served.store->slot_bytes();
  std::string const text = "; the least possible is " + format_bytes(least);
  return least == 0 ? text : text + " (" + format_fixed(ratio(account.store.bytes_loaded, least), 2) + "x)";
}

}  // namespace

ReadStats operator-(ReadStats const& later, ReadStats const& earlier) noexcept {
  return {.bytes_read = later.bytes_read - earlier.bytes_read,
          .overread_bytes = later.overread_bytes - earlier.overread_bytes,
          .reads = later.reads - earlier.reads};
}

std::uint64_t peak_rss_bytes() {
  // VmHWM is this program's own; getrusage would count what the process held before exec.
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::uint64_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib * 1024;
  }
  rusage usage{};
  return ::getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<std::uint64_t>(usage.ru_maxrss) * 1024 : 0;
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  auto const rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size())));
  return values[std::clamp<std::size_t>(rank, 1, values.size()) - 1];
}

Report make_report(RunAccount const& account, RunSettings const& settings, ServedModel const& served) {
  std::uint64_t const slot_bytes = served.store->slot_bytes();
  Report report;
  report.add("model", served.checkpoint.path);
  report.add("device", to_string(settings.serve.device));
  report.add("mode", to_string(settings.mode));
  report.add("policy", sida::to_string(settings.serve.policy));
  report.add("prefetch", settings.prefetch);
  if (!settings.predictor.empty()) add_predictor(report, settings);
  add_hit_rates(report, account.hit_rates, "");
  report.add("lookahead", settings.lookahead);
  report.add("prefetch_depth", settings.serve.prefetch_depth);
  report.add("batch", settings.batch);
  report.add("threads", settings.serve.threads);
  report.add("capacity", to_string(settings.serve.capacity));
  report.add("read_path", to_string(settings.serve.read_path));
  report.add("isa", sida::to_string(settings.serve.isa));
  report.add("warm_up", settings.warmed_up ? "yes" : "no");
  report.add("sequences", account.sequences);
  report.add("tokens", account.tokens);
  report.add("batches", std::uint64_t{account.batch_ms.size()});
  report.add("wall_s", account.wall_s);
  report.add("sequences_per_s", per_second(account.sequences, account.wall_s));
  report.add("tokens_per_s", per_second(account.tokens, account.wall_s));
  report.add("hash_s", seconds(account.pipeline.predict_ns));
  report.add("queue_wait_s", seconds(account.pipeline.plan_wait_ns));
  report.add("latency_ms_p50", percentile(account.batch_ms, 0.50));
  report.add("latency_ms_p99", percentile(account.batch_ms, 0.99));
  if (account.accuracy) report.add("accuracy", *account.accuracy);
  report.add("logits_sha256", account.logits_sha256);
  report.add("experts", served.checkpoint.expert_count());
  report.add("slots", std::uint64_t{served.store->slots()});
  report.add("slot_bytes", slot_bytes);
  report.add("expert_bytes_total", served.expert_bytes_total());
  report.add("budget_bytes", served.budget_bytes);
  report.add("peak_resident_expert_bytes", account.store.peak_resident_bytes);
  report.add("expert_bytes_read", account.store.bytes_loaded);
  if (account.min_loads) report.add("min_expert_bytes_read", *account.min_loads * slot_bytes);
  add_store(report, account.store, account.reads);
  if (served.host_store) {
    report.add("host_slots", std::uint64_t{served.host_store->slots()});
    report.add("host_expert_bytes_read", served.host_store->stats().bytes_loaded);
  }
  report.add("dense_bytes", std::uint64_t{served.encoder->dense_bytes()});
  report.add("peak_rss_bytes", peak_rss_bytes());
  return report;
}

std::string make_summary(RunAccount const& account, RunSettings const& settings, ServedModel const& served) {
  StoreStats const& stats = account.store;
  Table table;
  table.row("sequences", std::to_string(account.sequences) + " (" + std::to_string(account.tokens) +
                             " tokens, batches of " + std::to_string(settings.batch) + ")");
  if (account.accuracy) table.row("accuracy", format_fixed(*account.accuracy, 4));
  table.row("throughput", format_fixed(per_second(account.sequences, account.wall_s), 2) + " sequences/s, " +
                              format_fixed(per_second(account.tokens, account.wall_s), 1) + " tokens/s");
  table.row("latency of a batch", format_fixed(percentile(account.batch_ms, 0.50), 2) + " ms median, " +
                                      format_fixed(percentile(account.batch_ms, 0.99), 2) + " ms p99");
  table.row("wall time", format_fixed(account.wall_s, 2) + " s, of which " + format_fixed(stall_s(stats), 2) +
                             " s waiting for experts");
  table.row("expert budget", format_bytes(served.budget_bytes) + ": " + std::to_string(served.store->slots()) + " of " +
                                 std::to_string(served.checkpoint.expert_count()) + " experts (" +
                                 format_bytes(served.expert_bytes_total()) + ")");
  table.row("most resident", format_bytes(stats.peak_resident_bytes));
  table.row("experts read", format_bytes(stats.bytes_loaded) + least_text(account, served));
  table.row("expert hits", std::to_string(stats.hits) + " of " + std::to_string(stats.hits + stats.misses) + " (" +
                               format_fixed(100 * ratio(stats.hits, stats.hits + stats.misses), 1) + " %)");
  table.row("peak memory", format_bytes(peak_rss_bytes()));
  if (settings.mode == RunMode::predicted) {
    table.row("mode", "predicted: the hash function stands in for the routers, and answers are approximate");
  }
  if (auto const rate = account.hit_rates.mean_top1()) {
    table.row("routing foretold", format_fixed(100 * *rate, 1) + " % by the first guess, " +
                                      format_fixed(100 * account.hit_rates.mean_top3().value_or(0), 1) +
                                      " % by the first three");
  }
  table.row("policy, prefetch", std::string(sida::to_string(settings.serve.policy)) + ", " + settings.prefetch);
  table.row("logits sha256", account.logits_sha256);
  return table.text();
}

}  // namespace sida::cli
