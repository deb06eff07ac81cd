#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.hpp"
#include "cli/progress.hpp"
#include "cli/run_input.hpp"
#include "cli/run_setup.hpp"
#include "sida/core/result.hpp"
#include "sida/predict/any_predictor.hpp"
#include "sida/predict/predictor.hpp"

namespace sida::cli {

/// Who tells the store what to load ahead.
enum class Prefetch : std::uint8_t { none, oracle, popularity, hash, wrong };

/// Words of --prefetch; the last one is for tests.
std::vector<std::pair<std::string, Prefetch>> const& prefetch_words();
std::string to_string(Prefetch prefetch);

/// Plans experts that have nothing to do with the batch: what a store must bear without changing an answer.
class WrongPredictor {
 public:
  WrongPredictor(std::uint32_t layers, std::uint32_t experts) : layers_(layers), experts_(experts) {}
  Result<ActivationPlan> predict(PredictorInput const& input);
  void observe(std::uint64_t, std::uint32_t, Matrix<std::uint16_t const>) {}

 private:
  std::uint32_t layers_;
  std::uint32_t experts_;
};
static_assert(Predictor<WrongPredictor>);

/// Answers `batches`, to no avail but that everything is warm.
Status run_unmeasured(ServedModel& served, InputBatches const& batches, Session const& session, Progress& progress);

/// A predictor that doesn't read the input, or that has seen it: every one but the hash function. For the oracle this
/// runs `batches` once, and then empties the store and zeroes its counters.
/// @return what the run returns; invalid_argument for Prefetch::hash.
Result<AnyPredictor> make_predictor(Prefetch prefetch, ServedModel& served, InputBatches const& batches,
                                    Session const& session, Progress& progress);

}  // namespace sida::cli
