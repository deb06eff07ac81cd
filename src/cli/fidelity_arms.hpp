#pragma once

#include <cstdint>
#include <vector>

#include "cli/command.hpp"
#include "cli/progress.hpp"
#include "cli/run_hash.hpp"
#include "cli/run_input.hpp"
#include "cli/run_setup.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/result.hpp"
#include "sida/predict/hit_rate.hpp"

namespace sida::cli {

/// Who says which experts a token takes, and with what weight.
enum class Decider : std::uint8_t {
  router,          ///< the model's routers: exact mode
  hash,            ///< the hash function: predicted mode
  random_experts,  ///< a control: random experts, weighted as the router weighted its own
  no_experts,      ///< a control: the MoE layers add nothing
};

/// One way of answering all inputs.
struct FidelityArm {
  Decider decider = Decider::router;
  std::uint64_t top_k = 1;   ///< experts per token, where the hash function decides
  std::uint64_t pad_to = 0;  ///< fill sequences up with padding that is routed like any token; 0: none
};

struct ArmAnswers {
  std::vector<float> values;  // [inputs, labels]
  std::int64_t labels = 0;
  HitRates hit_rates;  ///< of the hash function against the routers, where these decided
  std::uint64_t tokens = 0;

  Matrix<float const> logits() const {
    return {values.data(), labels == 0 ? 0 : static_cast<std::int64_t>(values.size()) / labels, labels};
  }
};

/// What all arms share.
struct FidelitySetup {
  ServeOptions serve;
  HashOptions hash;
  std::uint64_t batch = 1;
  std::uint64_t seed = 1;  ///< of the random experts
};

/// `options` as `arm` needs the model to be served.
ServeOptions serve_options(FidelityArm const& arm, ServeOptions options);

/// Answers all of `input`. `served`: opened as `serve_options` says. @return what the hash function and the run return.
Result<ArmAnswers> run_arm(FidelityArm const& arm, FidelitySetup const& setup, ServedModel& served,
                           InputRows const& input, Progress& progress, Session const& session);

}  // namespace sida::cli
