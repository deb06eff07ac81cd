#pragma once

#include <stop_token>
#include <utility>

#include "cli/command.hpp"
#include "cli/run_input.hpp"
#include "cli/run_setup.hpp"
#include "sida/core/result.hpp"
#include "sida/runtime/pipeline.hpp"

namespace sida::cli {

/// Answers all of `batches` by `model`, which runs over the store of `served`. An interrupt stops the pipeline between
/// two steps, and wakes it from the store; `ServeOptions::stop` is what stops a long step.
template <SteppingModel M, Predictor P, BatchObserver<M> O>
Status run_batches(M& model, ServedModel& served, P& predictor, InputBatches batches, O& observer,
                   PipelineOptions options, Session const& session) {
  std::stop_callback const on_stop(session.stop(), [&served] { served.cancel(); });
  options.stop = session.stop();
  return run_pipeline(model, predictor, batches, observer, *served.store, *served.pool, options);
}

/// As above, by the model itself.
template <Predictor P, BatchObserver<SwitchEncoder> O>
Status run_batches(ServedModel& served, P& predictor, InputBatches batches, O& observer, PipelineOptions options,
                   Session const& session) {
  return run_batches(*served.encoder, served, predictor, batches, observer, std::move(options), session);
}

}  // namespace sida::cli
