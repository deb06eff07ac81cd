#include "bench/arms.hpp"

#include <array>
#include <chrono>
#include <stop_token>
#include <utility>

#include "bench/traced.hpp"
#include "cli/classify_results.hpp"
#include "cli/demand_log.hpp"
#include "cli/progress.hpp"
#include "cli/run_batches.hpp"
#include "sida/detail/try.hpp"
#include "sida/policy/belady.hpp"

namespace sida::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// Digests the answers and notes the demands. The same work in every arm.
class ArmObserver {
 public:
  ArmObserver(cli::InputRows const& input, cli::ClassifyResults& results, std::uint32_t experts)
      : input_(&input), results_(&results), log_(experts) {}

  void started(TokenBatch const&) {}
  void routed(TokenBatch const&, std::uint32_t layer, Routing<> routing) { log_.routed(layer, routing); }
  Status finished(TokenBatch const& batch, SwitchEncoder::State& state) {
    auto const count = static_cast<std::size_t>(batch.sequences());
    auto const rows = std::span(input_->rows).subspan(done_, count);
    done_ += count;
    return results_->add(rows, state.logits());
  }
  cli::DemandLog const& log() const noexcept { return log_; }

 private:
  cli::InputRows const* input_;
  cli::ClassifyResults* results_;
  cli::DemandLog log_;
  std::size_t done_ = 0;
};

Result<cli::Budget> budget_of(ArmBudget budget, cli::Budget given) {
  switch (budget) {
    case ArmBudget::all: return cli::Budget::parse("100%");
    case ArmBudget::one_slot: return cli::Budget::parse("0%");  // a share gives one slot at least
    case ArmBudget::given: break;
  }
  return given;
}

}  // namespace

std::span<ArmSpec const> arm_specs() {
  using cli::Prefetch;
  static std::array<ArmSpec, 8> const specs = {
      {{.name = "all resident", .budget = ArmBudget::all},
       {.name = "one slot, everything off", .budget = ArmBudget::one_slot},
       {.name = "FIFO on demand", .policy = PolicyKind::fifo},
       {.name = "LRU on demand", .policy = PolicyKind::lru},
       {.name = "LFRU on demand", .policy = PolicyKind::lfru},
       {.name = "planned by hash", .policy = PolicyKind::next_use, .prefetch = Prefetch::hash},
       {.name = "planned by oracle", .policy = PolicyKind::next_use, .prefetch = Prefetch::oracle},
       {.name = "LFRU on demand, mmap", .policy = PolicyKind::lfru, .read_path = ReadPath::mmap}}};
  return specs;
}

Result<std::unique_ptr<Arm>> Arm::open(ArmSpec const& spec, ArmSettings const& settings,
                                       std::shared_ptr<SlowDisk> disk) {
  std::unique_ptr<Arm> arm(new Arm(spec, settings));
  cli::ServeOptions options;
  options.model = settings.container;
  SIDA_TRY_ASSIGN(options.budget, budget_of(spec.budget, settings.budget));
  options.policy = spec.policy;
  options.threads = settings.threads;
  options.read_path = spec.read_path;
  options.prefetch_depth = settings.prefetch_depth;
  auto const decorate = [&](std::shared_ptr<ExpertSource const> experts) {
    if (settings.records && spec.read_path != ReadPath::mmap) experts = settings.records;
    return std::make_shared<TracedSource>(std::make_shared<SlowSource>(std::move(experts), disk), arm->trace_);
  };
  SIDA_TRY_ASSIGN(arm->served_, cli::ServedModel::open(options, decorate));
  SIDA_TRY(cli::require_head(arm->served_->checkpoint));
  if (spec.prefetch == cli::Prefetch::hash) {
    cli::HashOptions hash;
    hash.predictor = settings.predictor;
    hash.likely = settings.likely;
    SIDA_TRY_ASSIGN(arm->predictor_, cli::load_hash(hash, RunMode::exact, options, *arm->served_));
  }
  return arm;
}

Status Arm::prepare(cli::InputRows const& input, cli::Session const& session) {
  if (spec_.budget == ArmBudget::all) return fill().status();
  if (spec_.prefetch != cli::Prefetch::oracle) return {};
  cli::Progress quiet(false, {}, {});
  SIDA_TRY_ASSIGN(predictor_,
                  cli::make_predictor(spec_.prefetch, *served_, cli::InputBatches(input, *served_, 1), session, quiet));
  return {};
}

Result<double> Arm::fill() {
  SIDA_TRY(served_->store->reset());
  auto const began = Clock::now();
  auto const layers = served_->checkpoint.experts->experts_per_layer();
  for (std::uint32_t layer = 0; layer < layers.size(); ++layer) {
    std::vector<ExpertId> experts;
    for (std::uint32_t expert = 0; expert < layers[layer]; ++expert) experts.push_back({layer, expert});
    SIDA_TRY(served_->store->acquire(experts, StreamRef::host()).status());
  }
  return std::chrono::duration<double>(Clock::now() - began).count();
}

PipelineOptions Arm::pipeline_options(PipelineStats& stats) const {
  PipelineOptions options;
  options.submits_plans = spec_.prefetch != cli::Prefetch::none;
  options.lookahead = settings_.lookahead;
  options.start = PipelineStart::when_plans_are;
  options.stats = &stats;
  if (spec_.prefetch == cli::Prefetch::hash) options.embed = cli::make_embedder(*served_);
  return options;
}

Result<ArmRun> Arm::run(cli::InputRows const& input, cli::Session const& session) {
  if (spec_.budget != ArmBudget::all) SIDA_TRY(served_->store->reset());
  SIDA_TRY_ASSIGN(auto results, cli::ClassifyResults::create({}, served_->checkpoint.config.num_labels));
  ArmObserver observer(input, results, served_->checkpoint.config.num_experts);
  ArmRun run;
  StoreStats const before = served_->store->stats();
  auto const began = Clock::now();
  SIDA_TRY(cli::run_batches(*served_, predictor_, cli::InputBatches(input, *served_, 1), observer,
                            pipeline_options(run.pipeline), session));
  run.wall_s = std::chrono::duration<double>(Clock::now() - began).count();
  run.store = served_->store->stats() - before;
  run.logits_sha256 = results.logits_sha256();
  if (spec_.budget != ArmBudget::all) {  // what is there already need not be loaded
    auto const experts = static_cast<std::uint32_t>(served_->checkpoint.expert_count());
    run.min_loads = belady_min_loads(observer.log().events(), experts, served_->store->slots());
  }
  return run;
}

Result<TracedRun> Arm::run_traced(cli::InputRows const& input, cli::Session const& session) {
  if (spec_.budget != ArmBudget::all) SIDA_TRY(served_->store->reset());
  SIDA_TRY_ASSIGN(auto results, cli::ClassifyResults::create({}, served_->checkpoint.config.num_labels));
  ArmObserver observer(input, results, served_->checkpoint.config.num_experts);
  PipelineStats stats;
  PipelineOptions options = pipeline_options(stats);
  options.stop = session.stop();
  std::stop_callback const on_stop(session.stop(), [this] { served_->store->cancel(); });
  TracedModel model(*served_->encoder, *served_->store, *trace_);
  TracedPredictor predictor(predictor_, *trace_);
  cli::InputBatches batches(input, *served_, 1);
  trace_->turn_on();
  Status status = run_pipeline(model, predictor, batches, observer, *served_->store, *served_->pool, options);
  trace_->turn_off();
  if (!status) return std::move(status).error();
  return TracedRun{.name = spec_.name, .spans = trace_->spans()};
}

Result<cli::InputRows> read_rows(ArmSettings const& settings, cli::ServedModel const& served,
                                 cli::Session const& session) {
  cli::InputOptions options;
  options.data = settings.data;
  SIDA_TRY_ASSIGN(auto input, cli::read_inputs(options, served, session));
  if (settings.rows > 0 && settings.rows < input.rows.size()) input.rows.resize(settings.rows);
  if (input.rows.empty()) return Error(Errc::invalid_argument, settings.data + ": there are no rows");
  return input;
}

}  // namespace sida::bench
