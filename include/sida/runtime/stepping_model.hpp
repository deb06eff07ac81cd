#pragma once

#include <concepts>
#include <cstdint>
#include <span>

#include "sida/core/matrix.hpp"
#include "sida/core/result.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/route/routing.hpp"
#include "sida/route/token_batch.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::inline v0 {

/// A model that steps, one MoE layer at a time; all state of a batch is one value. For each batch:
/// begin, then for each MoE layer: run_to, route (or the caller fills `routing(state)` from a plan), run_moe; then
/// finish. Steps of several states may interleave. A state may be used again by a later `begin`.
template <class M>
concept SteppingModel = std::default_initializable<typename M::State> && std::movable<typename M::State> &&
    requires(M& model, M const& const_model, typename M::State& state, TokenBatch const& batch, std::uint32_t layer,
             ThreadPool& pool, PlanPosition position) {
  { const_model.moe_layers() }
  noexcept->std::convertible_to<std::uint32_t>;
  /// Looks up embeddings; `embeddings(state)` is [tokens, d_model] until the next step.
  { model.begin(batch, state) } -> std::same_as<Status>;
  { model.embeddings(state) } -> std::convertible_to<Matrix<float const>>;
  /// Runs everything before MoE layer `layer`; yields the router's input inside the state.
  { model.run_to(layer, state, pool) } -> std::same_as<Status>;
  /// The router's decision for MoE layer `layer`, into `routing(state)`.
  { model.route(layer, state, pool) } -> std::same_as<Status>;
  { model.routing(state) } -> std::same_as<Routing<>>;
  /// Runs the experts that `routing(state)` names. Blocks while they are loaded.
  { model.run_moe(layer, state, pool, position) } -> std::same_as<Status>;
  /// Runs the rest. Outputs are read from the state by who knows the model.
  { model.finish(state, pool) } -> std::same_as<Status>;
};

}  // namespace sida::inline v0
