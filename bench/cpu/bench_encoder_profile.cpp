// Where does an encoder's time go with all experts resident, and how near is each part to what the machine can do?
// docs/performance.md explains it.
#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "bench/cpu/encoder_work.hpp"
#include "bench/cpu/expert_arm.hpp"
#include "bench/cpu/ffn_rounds.hpp"
#include "bench/cpu/machine.hpp"
#include "bench/cpu/report.hpp"
#include "bench/cpu/seconds.hpp"
#include "bench/program.hpp"
#include "cli/interrupt.hpp"
#include "cli/options.hpp"
#include "cli/run_input.hpp"
#include "cli/run_setup.hpp"
#include "sida/detail/try.hpp"

namespace sida::bench {
namespace {

struct Options {
  cli::ServeOptions serve;
  std::string data;
  std::uint64_t rows = 64;
  std::uint64_t batch = 8;
  std::uint64_t rounds = 9;
  double peak_gflops = 0;
  bool json = false;
};

void add_options(CLI::App& app, Options& options) {
  app.add_option("--model", options.serve.model, "Checkpoint folder, or a container FILE.sida")->required();
  app.add_option("--data", options.data, "Sentences: a TSV or JSONL file")->required();
  cli::add_number(app, "--rows", options.rows, {}, "Answer the first so many rows only; 0: all");
  cli::add_number(app, "--batch", options.batch, {1, 65536}, "Sequences that are computed together");
  cli::add_number(app, "--rounds", options.rounds, {1, 10000}, "Passes over the rows");
  cli::add_number(app, "--threads", options.serve.threads, {1, 1024}, "Compute threads");
  app.add_option("--peak-gflops", options.peak_gflops,
                 "Peak of products with the model's weights, where another library's is higher than sida's");
  app.add_option_function<std::string>(
         "--isa",
         [&options](std::string const& name) {
           auto const isa = parse_cpu_isa(name);
           if (!isa || !is_runnable(*isa)) throw CLI::ValidationError("--isa", "one that this processor runs");
           options.serve.isa = *isa;
         },
         "Instruction set of the CPU kernels")
      ->default_str(std::string(to_string(options.serve.isa)));
  app.add_flag("--json", options.json, "Lines of JSON instead of tables");
}

/// A part of the encoder that is timed as one: everything between two looks at the clock.
struct Part {
  std::string name;
  double seconds = 0;
  double bound_s = 0;
};

/// One pass over all batches: parts in the order of the encoder.
class Pass {
 public:
  Pass(cli::ServedModel& served, Ceilings const& ceilings) : served_(served), ceilings_(ceilings) {}

  Status run(std::vector<TokenBatch> const& batches) {
    for (TokenBatch const& batch : batches) SIDA_TRY(run_one(batch));
    return {};
  }
  std::vector<Part> const& parts() const noexcept { return parts_; }

 private:
  Status run_one(TokenBatch const& batch) {
    SwitchEncoder& encoder = *served_.encoder;
    SwitchConfig const& config = encoder.config();
    size_ = size_of(batch);
    next_ = 0;
    std::uint32_t block = 0;
    SIDA_TRY(timed("embeddings", 0, [&] { return encoder.begin(batch, state_); }));
    for (std::uint32_t layer = 0; layer < encoder.moe_layers(); ++layer) {
      double bound = 0;
      std::uint32_t const first = block;
      bool is_moe = false;
      for (; !is_moe; ++block) bound += block_bound(is_moe = config.is_sparse(block));
      SIDA_TRY(timed(name_of(first, block), bound, [&] { return encoder.run_to(layer, state_, *served_.pool); }));
      SIDA_TRY(timed("router " + std::to_string(layer), ceilings_.bound_s(router_work(config, dense_type(), size_)),
                     [&] { return encoder.route(layer, state_, *served_.pool); }));
      SIDA_TRY(timed("experts " + std::to_string(layer), experts_bound(),
                     [&] { return encoder.run_moe(layer, state_, *served_.pool, {}); }));
    }
    double bound = ceilings_.bound_s(head_work(config, dense_type(), size_));
    for (std::uint32_t rest = block; rest < config.num_layers; ++rest) bound += block_bound(false);
    return timed("the rest", bound, [&] { return encoder.finish(state_, *served_.pool); });
  }

  /// Of a block, without its experts where it has some.
  double block_bound(bool is_moe) const {
    SwitchConfig const& config = served_.encoder->config();
    double const attention = ceilings_.bound_s(attention_work(config, dense_type(), size_));
    return attention + (is_moe ? 0 : ceilings_.bound_s(dense_ffn_work(config, dense_type(), size_)));
  }
  double experts_bound() {
    Routing<> const routing = served_.encoder->routing(state_);
    std::set<std::uint16_t> experts;
    double tokens = 0;
    for (std::int64_t t = 0; t < routing.tokens(); ++t) {
      if (routing.experts(t, 0) == kNoExpert) continue;
      experts.insert(routing.experts(t, 0));
      ++tokens;
    }
    Dtype const dtype = served_.checkpoint.layout.shape.dtype;
    return ceilings_.bound_s(
        experts_work(served_.encoder->config(), dtype, tokens, static_cast<double>(experts.size())));
  }
  /// The experts' type is what synthetic and distilled checkpoints have throughout.
  Dtype dense_type() const { return served_.checkpoint.layout.shape.dtype; }

  template <class Step>
  Status timed(std::string const& name, double bound_s, Step const& step) {
    Status status;
    double const seconds = seconds_of([&] { status = step(); });
    if (next_ == parts_.size()) parts_.push_back({name});
    parts_[next_].seconds += seconds;
    parts_[next_].bound_s += bound_s;
    ++next_;
    return status;
  }

  static std::string name_of(std::uint32_t first, std::uint32_t end) {
    std::string const blocks = std::to_string(first) + (end - first > 1 ? " to " + std::to_string(end - 1) : "");
    return "attention and dense FFN of blocks " + blocks;
  }
  static BatchSize size_of(TokenBatch const& batch) {
    BatchSize size;
    for (std::size_t s = 0; s + 1 < batch.sequence_offsets.size(); ++s) {
      double const tokens = batch.sequence_offsets[s + 1] - batch.sequence_offsets[s];
      size.tokens += tokens;
      size.squares += tokens * tokens;
      ++size.sequences;
    }
    return size;
  }

  cli::ServedModel& served_;
  Ceilings ceilings_;
  SwitchEncoder::State state_;
  BatchSize size_;
  std::vector<Part> parts_;
  std::size_t next_ = 0;
};

/// The rate of experts' products whose weights stay in caches, in the fastest of sida's instruction sets.
Result<double> measure_peak(Options const& options, Dtype dtype, ThreadPool& pool) {
  constexpr std::int64_t kRows = 1024;
  SIDA_TRY_ASSIGN(auto const one, ExpertSet::make(dtype, 1));
  SIDA_TRY_ASSIGN(auto const arms, run_rounds(sida_arms(), {one, kRows, pool}, static_cast<int>(options.rounds)));
  double const flops = 4.0 * kRows * static_cast<double>(ExpertSet::kModel * ExpertSet::kHidden);
  return flops / median(fastest_of_sida(arms).seconds);
}

/// Read bandwidth of memory, and the peaks.
Result<Ceilings> measure_ceilings(Options const& options, Dtype dtype, ThreadPool& pool, Report& report) {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  Ceilings ceilings;
  {
    SIDA_TRY_ASSIGN(auto memory, Buffer::allocate(host_memory(), kBytes, kRecordAlignment));
    std::ranges::fill(memory.bytes(), std::byte{1});
    ceilings.bytes = measure_read_rate(memory.bytes(), pool, static_cast<int>(options.rounds)).median;
  }
  SIDA_TRY_ASSIGN(ceilings.float_flops, measure_peak(options, Dtype::f32, pool));
  SIDA_TRY_ASSIGN(ceilings.flops, dtype == Dtype::f32 ? ceilings.float_flops : measure_peak(options, dtype, pool));
  if (options.peak_gflops > 0) ceilings.flops = options.peak_gflops * 1e9;
  report.row("machine", {{"cpu", processor_name()},
                         {"threads", static_cast<double>(pool.concurrency())},
                         {"read_gb_per_s", ceilings.bytes / 1e9, 2},
                         {"peak_gflop_per_s", ceilings.flops / 1e9, 1},
                         {"float_gflop_per_s", ceilings.float_flops / 1e9, 1},
                         {"load", load_average(), 2}});
  return ceilings;
}

Result<std::vector<TokenBatch>> read_batches(Options const& options, cli::ServedModel const& served,
                                             cli::Session const& session) {
  cli::InputOptions input;
  input.data = options.data;
  SIDA_TRY_ASSIGN(auto rows, cli::read_inputs(input, served, session));
  if (options.rows > 0 && options.rows < rows.rows.size()) rows.rows.resize(options.rows);
  if (rows.rows.empty()) return Error(Errc::invalid_argument, options.data + ": there are no rows");
  cli::InputBatches source(rows, served, options.batch);
  std::vector<TokenBatch> batches;
  for (;;) {
    SIDA_TRY_ASSIGN(auto batch, source.next());
    if (!batch) return batches;
    batches.push_back(*std::move(batch));
  }
}

/// Medians over the rounds, of a batch.
void report_parts(std::vector<std::vector<Part>> const& rounds, std::size_t batches, Report& report) {
  auto const each = static_cast<double>(batches);
  double total_s = 0, total_bound_s = 0;
  auto const row = [&](std::string const& name, double seconds, double bound_s) {
    report.row("part", {{"of", name},
                        {"ms", seconds / each * 1e3, 3},
                        {"bound_ms", bound_s / each * 1e3, 3},
                        {"of_bound", bound_s / seconds, 2}});
  };
  for (std::size_t i = 0; i < rounds.front().size(); ++i) {
    std::vector<double> seconds;
    for (auto const& parts : rounds) seconds.push_back(parts[i].seconds);
    double const bound_s = rounds.front()[i].bound_s;
    row(rounds.front()[i].name, median(seconds), bound_s);
    total_s += median(seconds);
    total_bound_s += bound_s;
  }
  row("all", total_s, total_bound_s);
}

Status run_bench(Options& options) {
  Report report(options.json);
  SIDA_TRY_ASSIGN(options.serve.budget, cli::Budget::parse("100%"));
  SIDA_TRY_ASSIGN(auto const served, cli::ServedModel::open(options.serve));
  cli::Interrupt interrupt;
  cli::Session const session(interrupt.stop(), cli::Interrupt::signalled(), false);
  SIDA_TRY_ASSIGN(auto const batches, read_batches(options, *served, session));
  Dtype const dtype = served->checkpoint.layout.shape.dtype;
  SIDA_TRY_ASSIGN(Ceilings const ceilings, measure_ceilings(options, dtype, *served->pool, report));
  report.row("run", {{"model", options.serve.model},
                     {"weights", std::string(to_string(dtype))},
                     {"isa", std::string(to_string(options.serve.isa))},
                     {"batch", static_cast<double>(options.batch)},
                     {"batches", static_cast<double>(batches.size())}});
  SIDA_TRY(Pass(*served, ceilings).run(batches));  // loads experts, and grows buffers
  std::vector<std::vector<Part>> rounds;
  for (std::uint64_t i = 0; i < options.rounds; ++i) {
    Pass pass(*served, ceilings);
    SIDA_TRY(pass.run(batches));
    if (session.stopped()) return cli::Session::interrupted();
    rounds.push_back(pass.parts());
  }
  report_parts(rounds, batches.size(), report);
  return {};
}

}  // namespace
}  // namespace sida::bench

int main(int argc, char** argv) {
  using namespace sida::bench;
  return run_program<Options>(argc, argv, "bench_encoder_profile",
                              "Where an encoder's time goes, beside what the machine can do.", run_bench);
}
