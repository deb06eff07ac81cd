#include "cli/fidelity_arms.hpp"

#include <utility>

#include "cli/altered_model.hpp"
#include "cli/run_batches.hpp"
#include "sida/detail/try.hpp"
#include "sida/predict/any_predictor.hpp"

namespace sida::cli {
namespace {

/// Keeps the answers.
class AnswersObserver {
 public:
  AnswersObserver(ArmAnswers& answers, std::uint64_t inputs, Progress& progress)
      : answers_(&answers), inputs_(inputs), progress_(&progress) {}
  void started(TokenBatch const&) {}
  void routed(TokenBatch const&, std::uint32_t, Routing<>) {}
  Status finished(TokenBatch const& batch, SwitchEncoder::State& state) {
    Matrix<float const> const logits = state.logits();
    for (std::int64_t row = 0; row < logits.rows; ++row) {
      auto const values = logits.row(row);
      answers_->values.insert(answers_->values.end(), values.begin(), values.end());
    }
    answers_->tokens += static_cast<std::uint64_t>(batch.tokens());
    done_ += static_cast<std::uint64_t>(batch.sequences());
    progress_->update(done_, inputs_);
    return {};
  }

 private:
  ArmAnswers* answers_;
  std::uint64_t inputs_;
  Progress* progress_;
  std::uint64_t done_ = 0;
};

/// In exact mode plans are judged by the routers, in predicted mode they decide, and the controls need none.
Result<AnyPredictor> make_arm_predictor(FidelityArm const& arm, FidelitySetup const& setup, ServedModel& served,
                                        HitRateMeter& meter) {
  if (arm.decider != Decider::router && arm.decider != Decider::hash) return AnyPredictor();
  HashOptions options = setup.hash;
  options.top_k = arm.top_k;
  RunMode const mode = arm.decider == Decider::hash ? RunMode::predicted : RunMode::exact;
  SIDA_TRY_ASSIGN(LstmHash hash, load_hash(options, mode, setup.serve, served));
  if (mode == RunMode::predicted) return AnyPredictor(std::move(hash));
  return AnyPredictor(JudgedPredictor<LstmHash>(std::move(hash), meter));
}

}  // namespace

ServeOptions serve_options(FidelityArm const& arm, ServeOptions options) {
  if (arm.decider == Decider::hash) {
    options.routing = SwitchRouting::given;
    options.experts_per_token = arm.top_k;
  }
  // Hits are counted over all that a router chose: with a capacity, most padding would go nowhere.
  if (arm.pad_to > 0) options.capacity = CapacityRule::none;
  return options;
}

Result<ArmAnswers> run_arm(FidelityArm const& arm, FidelitySetup const& setup, ServedModel& served,
                           InputRows const& input, Progress& progress, Session const& session) {
  HitRateMeter meter;
  SIDA_TRY_ASSIGN(auto predictor, make_arm_predictor(arm, setup, served, meter));
  PipelineOptions pipeline;
  pipeline.mode = arm.decider == Decider::hash ? RunMode::predicted : RunMode::exact;
  pipeline.embed = make_embedder(served);

  ArmAnswers answers;
  answers.labels = served.checkpoint.config.num_labels;
  InputBatches const batches(input, served, setup.batch, arm.pad_to);
  AnswersObserver observer(answers, input.rows.size(), progress);
  auto const run = [&](auto& model) {
    return run_batches(model, served, predictor, batches, observer, pipeline, session);
  };
  SwitchEncoder& encoder = *served.encoder;
  if (arm.decider == Decider::random_experts) {
    AlteredModel model(encoder, RandomExperts(encoder.config().num_experts, setup.seed));
    SIDA_TRY(run(model));
  } else if (arm.decider == Decider::no_experts) {
    AlteredModel model(encoder, NoExperts());
    SIDA_TRY(run(model));
  } else {
    SIDA_TRY(run(encoder));
  }
  answers.hit_rates = meter.rates();
  return answers;
}

}  // namespace sida::cli
