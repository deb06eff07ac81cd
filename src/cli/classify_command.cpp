#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <CLI/CLI.hpp>

#include "cli/classify_report.hpp"
#include "cli/classify_results.hpp"
#include "cli/command.hpp"
#include "cli/demand_log.hpp"
#include "cli/output_file.hpp"
#include "cli/progress.hpp"
#include "cli/run_batches.hpp"
#include "cli/run_hash.hpp"
#include "cli/run_input.hpp"
#include "cli/run_prefetch.hpp"
#include "cli/run_setup.hpp"
#include "sida/detail/try.hpp"
#include "sida/policy/belady.hpp"
#include "sida/predict/hit_rate.hpp"

namespace sida::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kClassifyManual[] =
    R"(Answers every input with the label of the highest score, and prints an account
of the run. The answers are those of the whole model, whatever the budget.

Input: a TSV file whose header names "sentence", or "sentence1" and "sentence2",
and "label" if there is one; a JSONL file of {"ids": [...], "label": ...}; or
MultiRC's JSONL, one input per answer. Text is UTF-8. Inputs are batched in
their order. docs/formats.md has the particulars of inputs and outputs.

Budget: slots of one expert each (its record rounded up to 4 KiB). N % are
floor(N/100 x experts) slots, at least one.

Prefetch: "hash" loads ahead what a hash function predicts from the words alone,
on a thread of its own; "oracle" runs the same batches once before, unmeasured,
to know their experts, and so reads everything twice; "popularity" plans the
experts used most so far. None of them changes an answer.

Mode: in "exact" mode the model's routers decide, whatever was predicted. In
"predicted" mode, SiDA's own, the hash function decides: routers are not even
loaded, and the answers are approximate. It takes --prefetch hash (its default)
or none, and --top-k experts per token, each weighted by its predicted softmax.

Sums are in float32, whatever the type of the weights. With bf16 weights --isa
amx_bf16 and avx512_bf16 round activations to bf16; the others round nothing.

Output: --out FILE gets "index, label, score_0, ..." as TSV. --json FILE gets
the account, one key per line; bytes of experts are slot bytes, latencies are
those of a batch, from its first step to its answer. --record DIR gets the
routing: experts.npy (uint16 [tokens, MoE layers, k], 65535 = no expert),
seqs.jsonl and meta.json. With --text and without --out, the answers go to
standard output. Files appear when the run has succeeded.

Exit status: 0; 1 for data, I/O, and a budget too small for one expert; 2 for
malformed or negative values and unknown options; 130 when interrupted.)";

struct ClassifyOptions {
  ServeOptions serve;
  InputOptions input;
  RunMode mode = RunMode::exact;
  HashOptions hash;
  std::optional<Prefetch> prefetch;
  std::uint64_t lookahead = 8;
  std::string out;
  std::string json;
  std::string record;
  bool warms_up = false;
  bool quiet = false;

  Prefetch prefetch_or_default() const {
    return prefetch.value_or(mode == RunMode::predicted ? Prefetch::hash : Prefetch::none);
  }
  bool needs_hash() const { return mode == RunMode::predicted || prefetch_or_default() == Prefetch::hash; }
};

/// What is written while the batches run.
struct Outputs {
  ClassifyResults results;
  std::optional<OutputFile> json;
  std::optional<RoutingRecord> record;

  static Result<Outputs> create(ClassifyOptions const& options, ServedModel const& served) {
    SwitchConfig const& config = served.checkpoint.config;
    SIDA_TRY_ASSIGN(auto results, ClassifyResults::create(options.out, config.num_labels));
    Outputs outputs{.results = std::move(results), .json = {}, .record = {}};
    if (options.out.empty() && !options.input.texts.empty()) outputs.results.keep_lines();
    if (!options.json.empty()) {
      SIDA_TRY_ASSIGN(outputs.json, OutputFile::create(options.json));
    }
    if (!options.record.empty()) {
      RecordMeta meta{.model = served.checkpoint.path,
                      .moe_layers = config.moe_layers(),
                      .experts = config.num_experts,
                      .top_k = static_cast<std::int64_t>(options.serve.experts_per_token),
                      .slots = served.store->slots(),
                      .slot_bytes = served.store->slot_bytes()};
      SIDA_TRY_ASSIGN(auto record, RoutingRecord::create(options.record, std::move(meta)));
      outputs.record.emplace(std::move(record));
    }
    return outputs;
  }

  /// All are finished before the first is published, so that a full disk leaves none.
  Status finish() {
    if (json) SIDA_TRY(json->finish());
    if (record) SIDA_TRY(record->finish());
    return results.finish();
  }
  Status publish() {
    if (json) SIDA_TRY(json->publish());
    if (record) SIDA_TRY(record->publish());
    return results.publish();
  }
};

/// Follows the measured run.
class ClassifyObserver {
 public:
  ClassifyObserver(InputRows const& input, ServedModel const& served, Outputs& outputs, Progress& progress)
      : input_(&input), outputs_(&outputs), progress_(&progress), log_(served.checkpoint.config.num_experts) {}

  void started(TokenBatch const&) { began_ = Clock::now(); }

  void routed(TokenBatch const&, std::uint32_t layer, Routing<> routing) {
    log_.routed(layer, routing);
    if (outputs_->record) outputs_->record->routed(layer, routing);
  }

  Status finished(TokenBatch const& batch, SwitchEncoder::State& state) {
    account_.batch_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - began_).count());
    auto const count = static_cast<std::size_t>(batch.sequences());
    std::span<Row const> const rows = std::span(input_->rows).subspan(account_.sequences, count);
    account_.sequences += count;
    account_.tokens += static_cast<std::uint64_t>(batch.tokens());
    SIDA_TRY(outputs_->results.add(rows, state.logits()));
    if (outputs_->record) SIDA_TRY(outputs_->record->finished(batch));
    progress_->update(account_.sequences, input_->rows.size());
    return {};
  }

  RunAccount const& account() const noexcept { return account_; }
  DemandLog const& log() const noexcept { return log_; }

 private:
  InputRows const* input_;
  Outputs* outputs_;
  Progress* progress_;
  DemandLog log_;
  RunAccount account_;
  Clock::time_point began_;
};

std::uint64_t least_loads(DemandLog const& log, ServedModel const& served) {
  return belady_min_loads(log.events(), static_cast<std::uint32_t>(served.checkpoint.expert_count()),
                          served.store->slots());
}

class ClassifyCommand final : public Command {
 public:
  std::string name() const override { return "classify"; }
  std::string summary() const override { return "Label sentences with a Switch classifier, under a memory budget"; }
  std::string manual() const override { return kClassifyManual; }

  void add_options(CLI::App& app) override {
    add_serve_options(app, options_.serve);
    add_input_options(app, options_.input);
    add_choice(app, "--mode", options_.mode, mode_words(), "Who decides which experts a token takes");
    add_choice(app, "--prefetch", options_.prefetch, prefetch_words(), "Who tells what to load ahead", 1)
        ->default_str("none; in predicted mode hash");
    add_hash_options(app, options_.hash);
    sparsemax_ = app.get_option("--sparsemax");
    likely_ = add_plan_options(app, options_.hash);
    lookahead_ =
        add_number(app, "--lookahead", options_.lookahead, {0, 65536}, "Batches whose experts are loaded ahead");
    add_path(app, "--out", options_.out, "Write labels and scores to this file");
    add_path(app, "--json", options_.json, "Write the account of the run to this file");
    add_path(app, "--record", options_.record, "Write the routing to this folder")->type_name("DIR");
    app.add_flag("--warm-up", options_.warms_up,
                 "Answer all inputs once beforehand, unmeasured; what that loaded stays");
    app.add_flag("--quiet", options_.quiet, "No summary and no progress bar");
  }

  void check() const override {
    check_serve_options(options_.serve);
    check_input_options(options_.input);
    check_hash_options();
    if (options_.warms_up && options_.mode == RunMode::predicted) {
      throw CLI::ValidationError("--warm-up", "this is for --mode exact");
    }
    bool const predicted = options_.mode == RunMode::predicted;
    Prefetch const prefetch = options_.prefetch_or_default();
    if (predicted && prefetch != Prefetch::hash && prefetch != Prefetch::none) {
      throw CLI::ValidationError("--prefetch", "predicted mode takes hash or none");
    }
    if (lookahead_->count() > 0 && prefetch == Prefetch::none) {
      throw CLI::ValidationError("--lookahead", "without --prefetch nothing is loaded ahead");
    }
  }

  Status run(Session& session) override {
    std::array const inputs{options_.serve.model, options_.input.data, options_.hash.predictor};
    auto const [experts, sequences, meta] = RoutingRecord::paths_in(options_.record);
    SIDA_TRY(require_apart(std::array{options_.out, options_.json, options_.record, experts, sequences, meta}, inputs));
    SIDA_TRY(require_folder_apart(options_.record, inputs));
    if (options_.mode == RunMode::predicted) {
      options_.serve.routing = SwitchRouting::given;
      options_.serve.experts_per_token = options_.hash.top_k;
    }
    options_.serve.stop = session.stop();
    SIDA_TRY_ASSIGN(auto served, ServedModel::open(options_.serve));
    SIDA_TRY(require_head(served->checkpoint));
    SIDA_TRY_ASSIGN(auto const input, read_inputs(options_.input, *served, session));
    SIDA_TRY(require_labels(input, served->checkpoint.config));
    SIDA_TRY_ASSIGN(auto outputs, Outputs::create(options_, *served));
    SIDA_TRY_ASSIGN(auto const account, measure(*served, input, outputs, session));
    RunSettings const settings{
        .serve = options_.serve,
        .mode = options_.mode,
        .prefetch = to_string(options_.prefetch_or_default()),
        .predictor = options_.needs_hash() ? predictor_path(options_.hash, served->checkpoint.path) : std::string(),
        .hash = options_.hash,
        .lookahead = options_.lookahead,
        .batch = options_.input.batch,
        .warmed_up = options_.warms_up};
    if (outputs.json) SIDA_TRY(outputs.json->write(make_report(account, settings, *served).json()));
    SIDA_TRY(outputs.finish());
    SIDA_TRY(print(outputs.results.lines()));
    if (!options_.quiet) SIDA_TRY(print(make_summary(account, settings, *served)));
    return outputs.publish();
  }

 private:
  void check_hash_options() const {
    bool const predicted = options_.mode == RunMode::predicted;
    if (likely_->count() > 0 && (predicted || options_.prefetch_or_default() != Prefetch::hash)) {
      throw CLI::ValidationError("--likely", "this is for --mode exact with --prefetch hash");
    }
    if (!predicted && (options_.hash.top_k != 1 || options_.hash.renormalise)) {
      throw CLI::ValidationError("--top-k, --renormalise", "these are for --mode predicted");
    }
    if (!options_.needs_hash() && (!options_.hash.predictor.empty() || sparsemax_->count() > 0)) {
      throw CLI::ValidationError("--predictor, --sparsemax", "these are for --prefetch hash and --mode predicted");
    }
  }

  /// Prepares the predictor, and then runs and accounts for all batches.
  Result<RunAccount> measure(ServedModel& served, InputRows const& input, Outputs& outputs, Session const& session) {
    bool const shows = session.has_terminal() && !options_.quiet;
    InputBatches const batches(input, served, options_.input.batch);
    Progress recording(shows, options_.warms_up ? "warming up" : "recording the routing", "sequences");
    HitRateMeter meter;
    PipelineStats stats;
    PipelineOptions pipeline;
    SIDA_TRY_ASSIGN(auto predictor, predictor_for(served, batches, session, recording, meter));
    pipeline.mode = options_.mode;
    pipeline.submits_plans = options_.prefetch_or_default() != Prefetch::none;
    if (options_.needs_hash()) pipeline.embed = make_embedder(served);
    pipeline.stats = &stats;
    pipeline.lookahead = options_.lookahead;
    pipeline.start = PipelineStart::when_plans_are;

    if (options_.warms_up) SIDA_TRY(run_unmeasured(served, batches, session, recording));
    StoreStats const store_before = served.store->stats();
    Progress progress(shows, "classifying", "sequences");
    ClassifyObserver observer(input, served, outputs, progress);
    ReadStats const reads_before = served.checkpoint.experts->read_stats();
    auto const began = Clock::now();
    SIDA_TRY(run_batches(served, predictor, batches, observer, pipeline, session));
    RunAccount account = observer.account();
    account.wall_s = std::chrono::duration<double>(Clock::now() - began).count();
    account.store = served.store->stats() - store_before;
    account.reads = served.checkpoint.experts->read_stats() - reads_before;
    account.pipeline = stats;
    account.hit_rates = meter.rates();
    account.accuracy = outputs.results.accuracy();
    account.logits_sha256 = outputs.results.logits_sha256();
    if (!options_.warms_up) account.min_loads = least_loads(observer.log(), served);
    return account;
  }

  /// Where the routers run, plans are judged by them.
  Result<AnyPredictor> predictor_for(ServedModel& served, InputBatches const& batches, Session const& session,
                                     Progress& recording, HitRateMeter& meter) {
    if (options_.needs_hash()) {
      SIDA_TRY_ASSIGN(LstmHash hash, load_hash(options_.hash, options_.mode, options_.serve, served));
      if (options_.mode == RunMode::predicted) return AnyPredictor(std::move(hash));
      return AnyPredictor(JudgedPredictor<LstmHash>(std::move(hash), meter));
    }
    return make_predictor(options_.prefetch_or_default(), served, batches, session, recording);
  }

  ClassifyOptions options_;
  CLI::Option const* sparsemax_ = nullptr;
  CLI::Option const* likely_ = nullptr;
  CLI::Option const* lookahead_ = nullptr;
};

}  // namespace

std::unique_ptr<Command> make_classify_command() { return std::make_unique<ClassifyCommand>(); }

}  // namespace sida::cli
