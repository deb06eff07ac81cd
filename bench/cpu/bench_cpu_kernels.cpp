// How fast are sida's products on this processor, against its memory, its arithmetic and other libraries? And does a
// row's result depend on the rows that are computed with it? docs/benchmarks.md explains it.
#include <algorithm>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "bench/cpu/arm_error.hpp"
#include "bench/cpu/expert_arm.hpp"
#include "bench/cpu/ffn_rounds.hpp"
#include "bench/cpu/machine.hpp"
#include "bench/cpu/report.hpp"
#include "bench/cpu/row_independence.hpp"
#include "bench/cpu/seconds.hpp"
#include "bench/program.hpp"
#include "cli/options.hpp"
#include "sida/detail/try.hpp"

namespace sida::bench {
namespace {

constexpr std::int64_t kPeakRows = 1024;

struct Options {
  std::uint64_t rounds = 9;
  std::uint64_t weights_mib = 1024;
  std::uint64_t threads = std::max(1U, std::thread::hardware_concurrency());
  std::vector<std::string> weights = {"fp32", "bf16"};
  std::vector<std::int64_t> rows = {1, 8, 64, 256};
  std::vector<std::string> arms;  ///< only those whose names contain one of these
  bool json = false;
};

void add_options(CLI::App& app, Options& options) {
  cli::add_number(app, "--rounds", options.rounds, {1, 10000}, "Turns of each arm");
  cli::add_number(app, "--weights-mib", options.weights_mib, {64, 65536},
                  "Experts to go through: several times what the caches hold");
  cli::add_number(app, "--threads", options.threads, {1, 1024}, "Threads, where it isn't one");
  app.add_option("--weights", options.weights, "Types of weights")
      ->delimiter(',')
      ->check(CLI::IsMember(std::vector<std::string>{"fp32", "bf16"}))
      ->capture_default_str();
  app.add_option("--rows", options.rows, "Tokens of one expert")
      ->delimiter(',')
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{65536}))
      ->capture_default_str();
  app.add_option("--arms", options.arms, "Only arms whose name contains one of these: avx512,oneDNN")->delimiter(',');
  app.add_flag("--json", options.json, "Lines of JSON instead of tables");
}

/// A pool, and what its threads can do together.
struct Threads {
  ThreadPool& pool;
  double read_bytes_per_s = 0;
  double flops = 0;  ///< of any arm's, with weights of one type
  double count() const noexcept { return static_cast<double>(pool.concurrency()); }
};

std::vector<ArmSpec> arms_for(Dtype dtype, Options const& options) {
  auto specs = sida_arms();
  for (auto& spec : peer_arms(dtype)) specs.push_back(std::move(spec));
  std::erase_if(specs, [&](ArmSpec const& spec) {
    auto const named = [&](std::string const& part) { return spec.name.find(part) != std::string::npos; };
    return !options.arms.empty() && std::ranges::none_of(options.arms, named);
  });
  return specs;
}

Status measure_memory(std::vector<Threads>& all, Options const& options, Report& report) {
  std::size_t const bytes = options.weights_mib << 20;
  SIDA_TRY_ASSIGN(auto memory, Buffer::allocate(host_memory(), bytes, kRecordAlignment));
  std::ranges::fill(memory.bytes(), std::byte{1});
  for (Threads& threads : all) {
    ReadRate const rate = measure_read_rate(memory.bytes(), threads.pool, static_cast<int>(options.rounds));
    threads.read_bytes_per_s = rate.median;
    report.row("memory", {{"threads", threads.count()},
                          {"read_gb_per_s", rate.median / 1e9, 2},
                          {"least", rate.least / 1e9, 2},
                          {"best", rate.best / 1e9, 2}});
  }
  return {};
}

double flops_of(std::int64_t rows) {
  return 4.0 * static_cast<double>(rows) * static_cast<double>(ExpertSet::kModel * ExpertSet::kHidden);
}

/// One row of the report for each arm. x_sida: the time as a multiple of that of sida's fastest, in the same round.
void report_arms(char const* kind, std::vector<ArmTimes> const& arms, ArmTask const& task, Threads const& threads,
                 Report& report) {
  if (arms.empty()) return;
  ArmTimes const& sida = fastest_of_sida(arms);
  double const flops = flops_of(task.rows);
  double const bytes = 2.0 * static_cast<double>(task.experts.layout().matrix_bytes());
  for (ArmTimes const& arm : arms) {
    double const seconds = median(arm.seconds);
    auto const [least, most] = std::ranges::minmax(arm.seconds);
    std::vector<Cell> cells = {{"weights", std::string(to_string(task.experts.layout().shape.dtype))},
                               {"threads", threads.count()},
                               {"rows", static_cast<double>(task.rows)},
                               {"arm", arm.name},
                               {"us", seconds * 1e6},
                               {"us_min", least * 1e6},
                               {"us_max", most * 1e6},
                               {"gflop_per_s", flops / seconds / 1e9, 1},
                               {"gb_per_s", bytes / seconds / 1e9, 2},
                               {"of_read", bytes / seconds / threads.read_bytes_per_s, 2},
                               {"of_peak", threads.flops > 0 ? flops / seconds / threads.flops : 0, 2}};
    if (sida.is_sida) cells.push_back({"x_sida", median_ratio(arm, sida), 2});
    report.row(kind, cells);
  }
}

/// Many rows of one expert, over and over, whose weights hence stay in the caches.
Status measure_peak(std::vector<ArmSpec> const& specs, ExpertSet const& one, Threads& threads, Options const& options,
                    Report& report) {
  ArmTask const task{one, kPeakRows, threads.pool};
  SIDA_TRY_ASSIGN(auto const arms, run_rounds(specs, task, static_cast<int>(options.rounds)));
  threads.flops = 0;
  for (ArmTimes const& arm : arms) {
    threads.flops = std::max(threads.flops, flops_of(task.rows) / median(arm.seconds));
  }
  report_arms("peak", arms, task, threads, report);
  return {};
}

Status measure_experts(Dtype dtype, std::vector<Threads>& all, Options const& options, Report& report) {
  auto const specs = arms_for(dtype, options);
  SIDA_TRY_ASSIGN(auto const one, ExpertSet::make(dtype, 1));
  for (Threads& threads : all) SIDA_TRY(measure_peak(specs, one, threads, options, report));
  std::size_t const count = std::max<std::size_t>((options.weights_mib << 20) / one.layout().size_bytes, 2);
  SIDA_TRY_ASSIGN(auto const experts, ExpertSet::make(dtype, count));
  for (Threads const& threads : all) {
    for (std::int64_t const rows : options.rows) {
      ArmTask const task{experts, rows, threads.pool};
      SIDA_TRY_ASSIGN(auto const arms, run_rounds(specs, task, static_cast<int>(options.rounds)));
      report_arms("expert", arms, task, threads, report);
    }
  }
  return {};
}

/// Nothing is measured before all arms agree.
Status check_errors(Dtype dtype, std::vector<Threads> const& all, Options const& options, Report& report) {
  double const tolerance = dtype == Dtype::f32 ? 1e-4 : 0.03;  // libraries round x to bf16
  SIDA_TRY_ASSIGN(auto const experts, ExpertSet::make(dtype, 1));
  for (ArmSpec const& spec : arms_for(dtype, options)) {
    for (Threads const& threads : all) {
      auto error = arm_error(spec, experts, threads.pool);
      if (!error) return std::move(error).error().with_context(spec.name);
      report.row("error", {{"weights", std::string(to_string(dtype))},
                           {"threads", threads.count()},
                           {"arm", spec.name},
                           {"error", *error, 7}});
      if (!(*error <= tolerance)) return {Errc::corrupt, spec.name + " computes something else"};
    }
  }
  return {};
}

Status check_rows(Dtype dtype, std::vector<Threads> const& all, Options const& options, Report& report) {
  auto const word = [](bool same) { return std::string(same ? "yes" : "no"); };
  SIDA_TRY_ASSIGN(auto const experts, ExpertSet::make(dtype, 1));
  for (ArmSpec const& spec : arms_for(dtype, options)) {
    if (spec.only_rows != 0) continue;
    std::vector<float> with_one_thread;
    for (Threads const& threads : all) {
      SIDA_TRY_ASSIGN(auto const found, row_independence(spec, experts, threads.pool));
      if (with_one_thread.empty()) with_one_thread = found.all;
      report.row("same bytes", {{"weights", std::string(to_string(dtype))},
                                {"threads", threads.count()},
                                {"arm", spec.name},
                                {"alone", word(found.alone)},
                                {"in_sevens", word(found.in_sevens)},
                                {"as_with_one_thread", word(same_bytes(found.all, with_one_thread))}});
    }
  }
  return {};
}

void report_machine(Report& report) {
  report.row("machine", {{"cpu", processor_name()}, {"load", load_average(), 2}});
  for (auto const& note : peer_notes()) report.row("library", {{"is", note}});
}

Status run_bench(Options const& options) {
  Report report(options.json);
  report_machine(report);
  InlinePool one;
  WorkerPool many(options.threads);
  std::vector<Threads> all = {{one}};
  if (many.concurrency() > 1) all.push_back({many});
  std::vector<Dtype> types;
  for (auto const& name : options.weights) types.push_back(name == "fp32" ? Dtype::f32 : Dtype::bf16);
  auto const none = [&](Dtype dtype) { return arms_for(dtype, options).empty(); };
  if (std::ranges::all_of(types, none)) return {Errc::invalid_argument, "--arms: no arm has such a name"};
  for (Dtype const dtype : types) SIDA_TRY(check_errors(dtype, all, options, report));
  for (Dtype const dtype : types) SIDA_TRY(check_rows(dtype, all, options, report));
  SIDA_TRY(measure_memory(all, options, report));
  for (Dtype const dtype : types) SIDA_TRY(measure_experts(dtype, all, options, report));
  report.row("afterwards", {{"load", load_average(), 2}});
  return {};
}

}  // namespace
}  // namespace sida::bench

int main(int argc, char** argv) {
  using namespace sida::bench;
  return run_program<Options>(argc, argv, "bench_cpu_kernels",
                              "Products of experts' shapes on this processor: sida's, and other libraries'.",
                              run_bench);
}
