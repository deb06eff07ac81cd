#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/command.hpp"
#include "cli/fidelity_arms.hpp"
#include "cli/fidelity_measures.hpp"
#include "cli/hit_rate_report.hpp"
#include "cli/options.hpp"
#include "cli/output_file.hpp"
#include "cli/progress.hpp"
#include "cli/report.hpp"
#include "cli/run_hash.hpp"
#include "cli/run_input.hpp"
#include "cli/run_setup.hpp"
#include "sida/detail/try.hpp"

namespace sida::cli {
namespace {

constexpr char kFidelityManual[] =
    R"(Answers every input in exact mode, where the model's routers choose the experts,
and in predicted mode, where the hash function does, with 1, 2 and 3 experts per
token; and says how far they differ. Two controls say what the figures are
worth: random experts, weighted as the routers weighted theirs, and MoE layers
that add nothing.

accuracy    share of right answers, of the inputs that have a label
F1          of label 1, where there are two; for MultiRC's file this is its F1a
agreement   share of inputs answered as in exact mode
KL          mean of KL(exact || other) of the answers' softmax, in nats
hit rates   share of tokens whose expert, as the router chose it, is the hash
            function's first guess, or among its first two or three; per layer

Sequences are not padded, so hit rates are those of real tokens. --pad-to N
counts them again with every sequence filled up to N tokens of padding that the
model computes like any other, without capacity: as the paper's own code does,
with 512.

Exit status: 0; 1 for data, I/O, and a budget too small for one expert; 2 for
malformed or negative values and unknown options; 130 when interrupted.)";

constexpr std::uint64_t kMostExpertsPerToken = 3;  // the paper's top-1, 2 and 3
constexpr std::uint64_t kMostPadding = 65536;
constexpr int kPlaces = 4;

/// One line of the table.
struct ArmResult {
  std::string key;   ///< in JSON
  std::string name;  ///< for people
  Quality quality;
  std::optional<Likeness> likeness;  ///< to exact mode; not of itself
};

struct FidelityResult {
  std::vector<ArmResult> arms;
  HitRates hit_rates;
  HitRates padded_hit_rates;
  std::uint64_t inputs = 0;
  std::uint64_t tokens = 0;
};

std::string optional_text(std::optional<double> value) { return value ? format_fixed(*value, kPlaces) : "-"; }

class FidelityCommand final : public Command {
 public:
  std::string name() const override { return "fidelity"; }
  std::string summary() const override { return "Say how far predicted mode is from exact mode"; }
  std::string manual() const override { return kFidelityManual; }

  void add_options(CLI::App& app) override {
    add_serve_options(app, setup_.serve);
    add_input_options(app, input_);
    add_hash_options(app, setup_.hash);
    add_number(app, "--pad-to", pad_to_, {0, kMostPadding},
               "Count hit rates again with sequences padded to this; 0: no");
    add_number(app, "--seed", setup_.seed, {}, "Of the random experts");
    add_path(app, "--json", json_, "Write the figures to this file");
    app.add_flag("--quiet", quiet_, "No table and no progress bar");
  }
  void check() const override {
    check_serve_options(setup_.serve);
    check_input_options(input_);
  }

  Status run(Session& session) override {
    SIDA_TRY(require_apart(std::array{json_}, std::array{setup_.serve.model, input_.data, setup_.hash.predictor}));
    setup_.batch = input_.batch;
    setup_.serve.stop = session.stop();
    std::optional<OutputFile> json;
    if (!json_.empty()) {
      SIDA_TRY_ASSIGN(json, OutputFile::create(json_));
    }
    SIDA_TRY_ASSIGN(auto const result, compare_all(session));
    if (json) {
      SIDA_TRY(json->write(make_json(result)));
      SIDA_TRY(json->finish());
    }
    if (!quiet_) SIDA_TRY(print(make_text(result)));
    return json ? json->publish() : Status();
  }

 private:
  Result<ArmAnswers> run_arm_shown(FidelityArm const& arm, std::string const& label, ServedModel& served,
                                   InputRows const& input, Session const& session) const {
    Progress progress(session.has_terminal() && !quiet_, label, "sequences");
    return run_arm(arm, setup_, served, input, progress, session);
  }

  Result<FidelityResult> compare_all(Session const& session) const {
    FidelityResult result;
    std::vector<ArmResult> controls;
    InputRows input;
    ArmAnswers exact;
    auto const judged = [&](std::string key, std::string name, ArmAnswers const& answers) -> ArmResult {
      return {std::move(key), std::move(name), judge(input.rows, answers.logits()),
              compare(exact.logits(), answers.logits())};
    };
    std::uint64_t experts = 0;
    {  // all that the routers decide; what it takes is free again before the rest begins
      SIDA_TRY_ASSIGN(auto const served, ServedModel::open(setup_.serve));
      SIDA_TRY(require_head(served->checkpoint));
      experts = served->checkpoint.config.num_experts;
      SIDA_TRY_ASSIGN(input, read_inputs(input_, *served, session));
      SIDA_TRY(require_labels(input, served->checkpoint.config));
      SIDA_TRY_ASSIGN(exact, run_arm_shown({}, "exact", *served, input, session));
      result.arms.push_back({"exact", "exact", judge(input.rows, exact.logits()), std::nullopt});
      SIDA_TRY_ASSIGN(auto answers,
                      run_arm_shown({.decider = Decider::random_experts}, "random experts", *served, input, session));
      controls.push_back(judged("random", "random experts", answers));
      SIDA_TRY_ASSIGN(answers, run_arm_shown({.decider = Decider::no_experts}, "no experts", *served, input, session));
      controls.push_back(judged("zeroed", "MoE layers zeroed", answers));
    }
    auto const run_served = [&](FidelityArm const& arm, std::string const& label) -> Result<ArmAnswers> {
      SIDA_TRY_ASSIGN(auto const served, ServedModel::open(serve_options(arm, setup_.serve)));
      return run_arm_shown(arm, label, *served, input, session);
    };
    for (std::uint64_t k = 1; k <= std::min(kMostExpertsPerToken, experts); ++k) {
      std::string const name = "predicted, top-" + std::to_string(k);
      SIDA_TRY_ASSIGN(ArmAnswers const answers, run_served({.decider = Decider::hash, .top_k = k}, name));
      result.arms.push_back(judged("top" + std::to_string(k), name, answers));
    }
    result.arms.insert(result.arms.end(), controls.begin(), controls.end());
    if (pad_to_ > 0) {
      SIDA_TRY_ASSIGN(ArmAnswers const padded, run_served({.pad_to = pad_to_}, "padded"));
      result.padded_hit_rates = padded.hit_rates;
    }
    result.inputs = input.rows.size();
    result.tokens = exact.tokens;
    result.hit_rates = exact.hit_rates;
    return result;
  }

  std::string make_json(FidelityResult const& result) const {
    Report report;
    report.add("model", setup_.serve.model);
    report.add("predictor", predictor_path(setup_.hash, setup_.serve.model));
    report.add("data", input_.data);
    report.add("renormalised", setup_.hash.renormalise ? "yes" : "no");
    report.add("capacity", to_string(setup_.serve.capacity));
    report.add("batch", setup_.batch);
    report.add("seed", setup_.seed);
    report.add("sequences", result.inputs);
    report.add("tokens", result.tokens);
    for (ArmResult const& arm : result.arms) {
      if (arm.quality.accuracy) report.add("accuracy_" + arm.key, *arm.quality.accuracy);
      if (arm.quality.f1) report.add("f1_" + arm.key, *arm.quality.f1);
      if (!arm.likeness) continue;
      report.add("agreement_" + arm.key, arm.likeness->agreement);
      report.add("kl_" + arm.key, arm.likeness->kl);
    }
    add_hit_rates(report, result.hit_rates, "");
    if (pad_to_ > 0) {
      report.add("pad_to", pad_to_);
      add_hit_rates(report, result.padded_hit_rates, "padded_");
    }
    return report.json();
  }

  std::string make_text(FidelityResult const& result) const {
    Grid arms({"", "accuracy", "F1", "agreement", "KL (nats)"});
    for (ArmResult const& arm : result.arms) {
      arms.row({arm.name, optional_text(arm.quality.accuracy), optional_text(arm.quality.f1),
                arm.likeness ? format_fixed(arm.likeness->agreement, kPlaces) : "-",
                arm.likeness ? format_fixed(arm.likeness->kl, kPlaces) : "-"});
    }
    std::string text = std::to_string(result.inputs) + " sequences, " + std::to_string(result.tokens) + " tokens\n\n" +
                       arms.text() + "\nRouting foretold, real tokens\n" + hit_rate_table(result.hit_rates);
    if (pad_to_ > 0) {
      text += "\nRouting foretold, padded to " + std::to_string(pad_to_) + " tokens\n";
      text += hit_rate_table(result.padded_hit_rates);
    }
    return text;
  }

  static std::string hit_rate_table(HitRates const& rates) {
    Grid grid({"MoE layer", "top-1", "top-2", "top-3"});
    for (std::size_t i = 0; i < rates.layers.size(); ++i) {
      HitRates::Layer const& layer = rates.layers[i];
      grid.row({std::to_string(i), format_fixed(ratio(layer.top1, layer.tokens), kPlaces),
                format_fixed(ratio(layer.top2, layer.tokens), kPlaces),
                format_fixed(ratio(layer.top3, layer.tokens), kPlaces)});
    }
    grid.row(
        {"mean", optional_text(rates.mean_top1()), optional_text(rates.mean_top2()), optional_text(rates.mean_top3())});
    return grid.text();
  }

  FidelitySetup setup_;
  InputOptions input_;
  std::uint64_t pad_to_ = 0;
  std::string json_;
  bool quiet_ = false;
};

}  // namespace

std::unique_ptr<Command> make_fidelity_command() { return std::make_unique<FidelityCommand>(); }

}  // namespace sida::cli
