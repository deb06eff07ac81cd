#include "cli/run_prefetch.hpp"

#include <algorithm>

#include "cli/run_batches.hpp"
#include "sida/detail/try.hpp"
#include "sida/predict/oracle.hpp"
#include "sida/predict/popularity.hpp"

namespace sida::cli {
namespace {

constexpr std::uint32_t kWrongExperts = 4;  // planned for each layer

/// Shows how far a run is that nobody measures.
class ProgressObserver {
 public:
  ProgressObserver(Progress& progress, std::uint64_t inputs) : progress_(&progress), inputs_(inputs) {}
  void started(TokenBatch const&) {}
  void routed(TokenBatch const&, std::uint32_t, Routing<>) {}
  Status finished(TokenBatch const& batch, SwitchEncoder::State&) {
    done_ += static_cast<std::uint64_t>(batch.sequences());
    progress_->update(done_, inputs_);
    return {};
  }

 private:
  Progress* progress_;
  std::uint64_t inputs_;
  std::uint64_t done_ = 0;
};

}  // namespace

std::vector<std::pair<std::string, Prefetch>> const& prefetch_words() {
  static std::vector<std::pair<std::string, Prefetch>> const words = {{"none", Prefetch::none},
                                                                      {"oracle", Prefetch::oracle},
                                                                      {"popularity", Prefetch::popularity},
                                                                      {"hash", Prefetch::hash},
                                                                      {"wrong", Prefetch::wrong}};
  return words;
}

std::string to_string(Prefetch prefetch) {
  for (auto const& [word, meaning] : prefetch_words()) {
    if (meaning == prefetch) return word;
  }
  return {};
}

Result<ActivationPlan> WrongPredictor::predict(PredictorInput const& input) {
  ActivationPlan plan;
  plan.tokens = input.batch.tokens();
  plan.k = 1;
  plan.layers.resize(layers_);
  for (std::uint32_t layer = 0; layer < layers_; ++layer) {
    auto& set = plan.layers[layer].expert_set;
    std::uint64_t const first = input.batch.number * 7 + std::uint64_t{layer} * 3;
    for (std::uint32_t i = 0; i < std::min(kWrongExperts, experts_); ++i) {
      set.push_back({layer, static_cast<std::uint32_t>((first + i) % experts_)});
    }
    std::ranges::sort(set);
  }
  return plan;
}

Status run_unmeasured(ServedModel& served, InputBatches const& batches, Session const& session, Progress& progress) {
  NoPredictor predictor;
  ProgressObserver observer(progress, batches.inputs());
  return run_batches(served, predictor, batches, observer, PipelineOptions{}, session);
}

Result<AnyPredictor> make_predictor(Prefetch prefetch, ServedModel& served, InputBatches const& batches,
                                    Session const& session, Progress& progress) {
  SwitchConfig const& config = served.checkpoint.config;
  switch (prefetch) {
    case Prefetch::none: return AnyPredictor();
    case Prefetch::popularity: return AnyPredictor::make<PopularityPredictor>();
    case Prefetch::wrong: return AnyPredictor(WrongPredictor(config.moe_layers(), config.num_experts));
    case Prefetch::hash: return Error(Errc::invalid_argument, "the hash function is loaded by itself");
    case Prefetch::oracle: break;
  }
  RoutingRecorder recorder;
  ProgressObserver observer(progress, batches.inputs());
  SIDA_TRY(run_batches(served, recorder, batches, observer, PipelineOptions{}, session));
  SIDA_TRY(served.store->reset());
  return AnyPredictor(OraclePredictor(recorder.recorded()));
}

}  // namespace sida::cli
