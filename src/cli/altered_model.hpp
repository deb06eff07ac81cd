#pragma once

#include <cstdint>
#include <random>
#include <utility>

#include "sida/detail/try.hpp"
#include "sida/runtime/stepping_model.hpp"

namespace sida::cli {

/// A model whose routers' decisions are changed before its experts run: what is left of the answers says what the
/// decisions are worth. `Change` is called as change(Routing<>) after every router.
template <SteppingModel M, class Change>
class AlteredModel {
 public:
  using State = typename M::State;

  /// `model` must outlive this.
  AlteredModel(M& model, Change change) : model_(&model), change_(std::move(change)) {}

  std::uint32_t moe_layers() const noexcept { return model_->moe_layers(); }
  Status begin(TokenBatch const& batch, State& state) { return model_->begin(batch, state); }
  Matrix<float const> embeddings(State& state) { return model_->embeddings(state); }
  Status run_to(std::uint32_t layer, State& state, ThreadPool& pool) { return model_->run_to(layer, state, pool); }
  Status route(std::uint32_t layer, State& state, ThreadPool& pool) {
    SIDA_TRY(model_->route(layer, state, pool));
    change_(model_->routing(state));
    return {};
  }
  Routing<> routing(State& state) { return model_->routing(state); }
  Status run_moe(std::uint32_t layer, State& state, ThreadPool& pool, PlanPosition position) {
    return model_->run_moe(layer, state, pool, position);
  }
  Status finish(State& state, ThreadPool& pool) { return model_->finish(state, pool); }

 private:
  M* model_;
  Change change_;
};

/// Every routed token takes a random expert, weighted as the router weighted its own.
class RandomExperts {
 public:
  RandomExperts(std::uint32_t experts, std::uint64_t seed) : last_(experts - 1), random_(seed) {}
  void operator()(Routing<> routing) {
    for (std::int64_t token = 0; token < routing.tokens(); ++token) {
      for (std::uint16_t& expert : routing.experts.row(token)) {
        if (expert != kNoExpert) expert = static_cast<std::uint16_t>(random_() % (std::uint64_t{last_} + 1));
      }
    }
  }

 private:
  std::uint32_t last_;
  std::mt19937_64 random_;
};

/// No token takes an expert: the MoE layers add nothing.
struct NoExperts {
  void operator()(Routing<> routing) const {
    for (std::int64_t token = 0; token < routing.tokens(); ++token) {
      for (std::uint16_t& expert : routing.experts.row(token)) expert = kNoExpert;
      for (float& weight : routing.weights.row(token)) weight = 0;
    }
  }
};

}  // namespace sida::cli
