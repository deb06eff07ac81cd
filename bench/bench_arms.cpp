// What does planning ahead win, end to end? The reference model answers the same sentences in eight arms, which run in
// a new order each round: everything resident, nothing but one slot, three policies on demand, plans by the hash
// function and by an oracle, and mapped files. Every arm must give the same logits. docs/benchmarks.md explains it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <sys/prctl.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "bench/arms.hpp"
#include "bench/arms_report.hpp"
#include "bench/bar_chart.hpp"
#include "bench/loaded_source.hpp"
#include "bench/program.hpp"
#include "bench/slow_calibration.hpp"
#include "bench/trace.hpp"
#include "cli/interrupt.hpp"
#include "cli/output_file.hpp"
#include "sida/detail/try.hpp"
#include "sida/model/switch_checkpoint.hpp"

namespace sida::bench {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string model = SIDA_REFERENCE_MODEL;
  std::string data = SIDA_REFERENCE_MODEL "/reviews.tsv";
  std::string predictor;
  cli::Budget budget;
  std::uint64_t rounds = 5;
  std::uint64_t rows = 0;
  std::uint64_t lookahead = 8;
  std::uint64_t prefetch_depth = StoreOptions{}.prefetch_depth;
  std::uint64_t likely = 50;  ///< percent
  /// All cores but one, which the hash-building thread and the reads use.
  std::uint64_t threads = std::max<std::uint64_t>(cli::ServeOptions::default_threads(), 2) - 1;
  std::string slow = "auto";
  double slow_bytes_per_s = 0;  ///< where --slow is a number
  std::uint64_t latency_us = 100;
  std::string json;
  std::string svg;
  std::string trace;
};

void add_options(CLI::App& app, Options& options) {
  if (auto quarter = cli::Budget::parse("25%")) options.budget = *quarter;
  app.add_option("--model", options.model, "Checkpoint folder, packed for the run, or a container FILE.sida");
  app.add_option("--data", options.data, "Sentences: a TSV or JSONL file");
  app.add_option("--predictor", options.predictor, "Hash function; without it, predictor.safetensors beside the model");
  app.add_option_function<std::string>(
         "--budget",
         [&options](std::string const& text) {
           auto budget = cli::Budget::parse(text);
           if (!budget) throw CLI::ValidationError("--budget", budget.message());
           options.budget = *budget;
         },
         "Experts in memory where an arm is under a budget")
      ->default_str("25%");
  cli::add_number(app, "--rounds", options.rounds, {1, 10000}, "Runs of each arm");
  cli::add_number(app, "--rows", options.rows, {}, "Answer the first so many rows only; 0: all");
  cli::add_number(app, "--lookahead", options.lookahead, {1, 65536}, "Batches planned ahead");
  cli::add_prefetch_depth(app, options.prefetch_depth);
  cli::add_number(app, "--likely", options.likely, {0, 100}, "The hash's arm: load ahead at this probability, percent");
  cli::add_number(app, "--threads", options.threads, {1, 1024}, "Compute threads");
  auto const slow = [&options](std::string const& text) {
    options.slow = text;
    if (text == "none" || text == "auto") return;
    constexpr double kMega = 1e6;
    auto const value = cli::parse_number(text, 1, 1000000);
    if (!value) throw CLI::ValidationError("--slow", "\"none\", \"auto\" or whole MB/s");
    options.slow_bytes_per_s = static_cast<double>(*value) * kMega;
  };
  app.add_option_function<std::string>(
         "--slow", slow,
         "How reads are slowed: none, MB/s, or auto: so that LRU on demand waits about as long as it computes")
      ->default_str("auto");
  cli::add_number(app, "--latency-us", options.latency_us, {0, 1000000}, "Latency of a slowed read");
  app.add_option("--json", options.json, "Write all figures to this file");
  app.add_option("--svg", options.svg, "Draw the wall times to this file");
  app.add_option("--trace", options.trace,
                 "Run the planned arms once more and write who waited for what, for Perfetto");
}

/// A container for the run: the one that was given, or a temporary one made from a folder.
class Container {
 public:
  static Result<Container> of(std::string const& model) {
    std::error_code ignored;
    if (!fs::is_directory(model, ignored)) return Container(model, false);
    auto const path = fs::temp_directory_path(ignored) / ("bench_arms-" + std::to_string(::getpid()) + ".sida");
    SIDA_TRY_ASSIGN(auto const checkpoint, open_switch_checkpoint(model, ReadPath::pread));
    SIDA_TRY(pack_switch_checkpoint(checkpoint, path.string()));
    return Container(path.string(), true);
  }
  Container(Container&& other) noexcept
      : path_(std::move(other.path_)), is_temporary_(std::exchange(other.is_temporary_, false)) {}
  Container& operator=(Container&&) = delete;
  ~Container() {
    std::error_code ignored;
    if (is_temporary_) fs::remove(path_, ignored);
  }
  std::string const& path() const noexcept { return path_; }

 private:
  Container(std::string path, bool is_temporary) : path_(std::move(path)), is_temporary_(is_temporary) {}
  std::string path_;
  bool is_temporary_;
};

using Arms = std::vector<std::unique_ptr<Arm>>;

Result<Arms> open_arms(ArmSettings const& settings, std::shared_ptr<SlowDisk> const& disk) {
  Arms arms;
  for (auto const& spec : arm_specs()) {
    auto arm = Arm::open(spec, settings, disk);
    if (!arm) return std::move(arm).error().with_context(spec.name);
    arms.push_back(*std::move(arm));
  }
  return arms;
}

/// A disk can only be slowed if it is faster than that: with --slow the bytes come out of memory.
Result<std::shared_ptr<ExpertSource const>> records_of(std::string const& container, std::string const& slow) {
  if (slow == "none") return std::shared_ptr<ExpertSource const>();
  SIDA_TRY_ASSIGN(auto const checkpoint, open_switch_checkpoint(container, ReadPath::pread));
  SIDA_TRY_ASSIGN(auto loaded, LoadedSource::of(*checkpoint.experts));
  return std::shared_ptr<ExpertSource const>(std::move(loaded));
}

/// Each round runs every arm once, in an order of its own.
Status run_rounds(Arms& arms, std::uint64_t rounds, cli::InputRows const& input, cli::Session const& session,
                  Experiment& experiment) {
  std::mt19937 random(1);
  std::vector<std::size_t> order(arms.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  experiment.runs.resize(arms.size());
  for (std::uint64_t round = 0; round < rounds; ++round) {
    std::ranges::shuffle(order, random);
    for (std::size_t const i : order) {
      auto run = arms[i]->run(input, session);
      if (!run) return std::move(run).error().with_context(arms[i]->spec().name);
      experiment.runs[i].push_back(*std::move(run));
    }
  }
  return {};
}

Status write_file(std::string const& path, std::string const& text) {
  if (path.empty()) return {};
  SIDA_TRY_ASSIGN(auto file, cli::OutputFile::create(path));
  SIDA_TRY(file.write(text));
  return file.commit();
}

Status write_trace(std::string const& path, Arms& arms, cli::InputRows const& input, cli::Session const& session) {
  if (path.empty()) return {};
  std::vector<TracedRun> runs;
  for (auto const place : {by_hash, by_oracle, lru}) {
    SIDA_TRY_ASSIGN(auto run, arms[place]->run_traced(input, session));
    runs.push_back(std::move(run));
  }
  return write_file(path, chrome_trace(runs));
}

Status slow_down(Options const& options, Arms& arms, SlowDisk& disk, cli::InputRows const& input,
                 cli::Session const& session) {
  if (options.slow == "none") return {};
  std::chrono::microseconds const latency(options.latency_us);
  if (options.slow == "auto") return calibrate(*arms[lru], disk, latency, input, session).status();
  disk.set({.bytes_per_s = options.slow_bytes_per_s, .latency = latency});
  return {};
}

Status run_bench(Options const& options, cli::Session const& session) {
  SIDA_TRY_ASSIGN(auto const container, Container::of(options.model));
  SIDA_TRY_ASSIGN(auto records, records_of(container.path(), options.slow));
  ArmSettings const settings{.container = container.path(),
                             .records = std::move(records),
                             .predictor = options.predictor.empty()
                                              ? (fs::path(options.model) / "predictor.safetensors").string()
                                              : options.predictor,
                             .data = options.data,
                             .budget = options.budget,
                             .rows = options.rows,
                             .lookahead = options.lookahead,
                             .prefetch_depth = options.prefetch_depth,
                             .likely = static_cast<double>(options.likely) / 100,
                             .threads = options.threads};
  auto const disk = std::make_shared<SlowDisk>();
  SIDA_TRY_ASSIGN(auto arms, open_arms(settings, disk));
  SIDA_TRY_ASSIGN(auto const input, read_rows(settings, arms[all_resident]->served(), session));
  for (auto const& arm : arms) SIDA_TRY(arm->prepare(input, session));
  SIDA_TRY(slow_down(options, arms, *disk, input, session));
  SIDA_TRY_ASSIGN(double const fill_s, arms[all_resident]->fill());

  auto& resident = arms[all_resident]->served();
  Experiment experiment{.settings = settings,
                        .model = options.model,
                        .slow = options.slow,
                        .disk = disk->speed(),
                        .fill_bytes_per_s = static_cast<double>(resident.expert_bytes_total()) / fill_s,
                        .rows = input.rows.size(),
                        .slot_bytes = resident.store->slot_bytes(),
                        .slots = {},
                        .runs = {}};
  for (auto const& arm : arms) experiment.slots.push_back(arm->served().store->slots());
  SIDA_TRY(run_rounds(arms, options.rounds, input, session, experiment));
  std::fputs(make_table(experiment).c_str(), stdout);
  SIDA_TRY(write_file(options.json, make_json(experiment)));
  SIDA_TRY(write_file(options.svg, to_svg(make_chart(experiment))));
  SIDA_TRY(write_trace(options.trace, arms, input, session));
  if (!same_answers(experiment)) return {Errc::corrupt, "the arms gave different logits"};
  return {};
}

Status run_in_session(Options const& options) {
  // A disk's interrupt comes on time; by default Linux lets a sleeper lie for 50 us more. Threads inherit this.
  ::prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
  cli::Interrupt interrupt;
  cli::Session const session(interrupt.stop(), cli::Interrupt::signalled(), false);
  return run_bench(options, session);
}

}  // namespace
}  // namespace sida::bench

int main(int argc, char** argv) {
  using namespace sida::bench;
  return run_program<Options>(argc, argv, "bench_arms",
                              "Serves the reference model in eight arms, interleaved, and compares their wall times.",
                              run_in_session);
}
