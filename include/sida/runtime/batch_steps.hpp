#pragma once

#include <concepts>
#include <cstdint>
#include <stop_token>

#include "sida/core/result.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/detail/try.hpp"
#include "sida/predict/predictor.hpp"
#include "sida/route/token_batch.hpp"
#include "sida/runtime/plan_queue.hpp"
#include "sida/runtime/stepping_model.hpp"

namespace sida::inline v0 {

/// A batch on its way to inference: its tokens, and what the store was told of it.
struct PlannedBatch {
  TokenBatch batch;
  ActivationPlan plan;
  SubmittedPlan submitted;
};

/// Who follows the batches of a run, on the inference thread: writes results, records routings, measures.
template <class O, class M>
concept BatchObserver = SteppingModel<M> &&
    requires(O& observer, TokenBatch const& batch, std::uint32_t layer, Routing<> routing, typename M::State& state) {
  /// Its first step comes next.
  { observer.started(batch) } -> std::same_as<void>;
  /// What the router said of one MoE layer; in predicted mode, what the plan says.
  { observer.routed(batch, layer, routing) } -> std::same_as<void>;
  /// All steps are done; outputs may be read from `state`. A failure ends the run.
  { observer.finished(batch, state) } -> std::same_as<Status>;
};

/// Sees nothing.
struct NoObserver {
  void started(TokenBatch const&) {}
  void routed(TokenBatch const&, std::uint32_t, Routing<>) {}
  template <class State>
  Status finished(TokenBatch const&, State&) {
    return {};
  }
};

/// Who decides which experts a token takes.
enum class RunMode : std::uint8_t {
  exact,      ///< the model's router; a plan only tells the store what is coming
  predicted,  ///< the plan, as in SiDA-MoE: the router never runs, and answers are approximate
};

/// What the steps of a run share. All of it must outlive the run.
template <SteppingModel M, Predictor P, BatchObserver<M> O>
struct StepContext {
  M& model;
  P& predictor;
  O& observer;
  ThreadPool& pool;
  std::stop_token stop = {};
  RunMode mode = RunMode::exact;

  /// @return cancelled once a stop is requested; asked before each step.
  Status proceed() const {
    if (stop.stop_requested()) return {Errc::cancelled, "the run was stopped"};
    return {};
  }
};

/// The steps of one batch. One batch after another is one order of these; a window of batches layer by layer is
/// another, with a state for each of them.
template <SteppingModel M, Predictor P, BatchObserver<M> O>
Status begin_batch(StepContext<M, P, O> const& context, TokenBatch const& batch, typename M::State& state) {
  SIDA_TRY(context.proceed());
  context.observer.started(batch);
  return context.model.begin(batch, state);
}

/// Everything up to MoE layer `layer`, its routing, and its experts. In exact mode the model's router decides; where it
/// disagrees with the plan, the store loads what the router wants. @return invalid_argument for a plan that does not
/// say enough for predicted mode.
template <SteppingModel M, Predictor P, BatchObserver<M> O>
Status run_layer(StepContext<M, P, O> const& context, PlannedBatch const& planned, std::uint32_t layer,
                 typename M::State& state) {
  M& model = context.model;
  SIDA_TRY(context.proceed());
  SIDA_TRY(model.run_to(layer, state, context.pool));
  if (context.mode == RunMode::exact) SIDA_TRY(model.route(layer, state, context.pool));
  Routing<> const routing = model.routing(state);
  if (context.mode == RunMode::exact) {
    context.predictor.observe(planned.batch.number, layer, routing.experts);
  } else {
    SIDA_TRY(route_by_plan(planned.plan, layer, routing));
  }
  context.observer.routed(planned.batch, layer, routing);
  SIDA_TRY(context.proceed());
  return model.run_moe(layer, state, context.pool, planned.submitted.at(layer));
}

template <SteppingModel M, Predictor P, BatchObserver<M> O>
Status finish_batch(StepContext<M, P, O> const& context, TokenBatch const& batch, typename M::State& state) {
  SIDA_TRY(context.proceed());
  SIDA_TRY(context.model.finish(state, context.pool));
  return context.observer.finished(batch, state);
}

/// All steps of one batch.
template <SteppingModel M, Predictor P, BatchObserver<M> O>
Status run_batch(StepContext<M, P, O> const& context, PlannedBatch const& planned, typename M::State& state) {
  SIDA_TRY(begin_batch(context, planned.batch, state));
  std::uint32_t const layers = context.model.moe_layers();
  for (std::uint32_t layer = 0; layer < layers; ++layer) SIDA_TRY(run_layer(context, planned, layer, state));
  return finish_batch(context, planned.batch, state);
}

}  // namespace sida::inline v0
