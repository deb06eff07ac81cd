#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "bench/trace.hpp"
#include "sida/io/expert_source.hpp"
#include "sida/model/switch_encoder.hpp"
#include "sida/predict/any_predictor.hpp"
#include "sida/route/activation_plan.hpp"
#include "sida/runtime/stepping_model.hpp"

namespace sida::bench {

/// The experts of another source; tells when each was read, and on which thread.
class TracedSource final : public ExpertSource {
 public:
  TracedSource(std::shared_ptr<ExpertSource const> experts, std::shared_ptr<Trace> trace)
      : experts_(std::move(experts)), trace_(std::move(trace)) {}

  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return experts_->experts_per_layer(); }
  std::size_t record_bytes(ExpertId id) const noexcept override { return experts_->record_bytes(id); }
  ReadStats read_stats() const noexcept override { return experts_->read_stats(); }

  Status read(ExpertId id, std::span<std::byte> dst) const override {
    if (!trace_->is_on()) return experts_->read(id, dst);
    auto const begin = TraceSpan::Clock::now();
    Status status = experts_->read(id, dst);
    trace_->add({.role = TraceRole::reading,
                 .name = "read " + std::to_string(id.layer) + "/" + std::to_string(id.expert),
                 .begin = begin,
                 .end = TraceSpan::Clock::now(),
                 .experts = {id}});
    return status;
  }

 private:
  std::shared_ptr<ExpertSource const> experts_;
  std::shared_ptr<Trace> trace_;
};

/// Another predictor; tells when it predicted.
class TracedPredictor {
 public:
  TracedPredictor(AnyPredictor& predictor, Trace& trace) : predictor_(&predictor), trace_(&trace) {}

  Result<ActivationPlan> predict(PredictorInput const& input) {
    auto const begin = TraceSpan::Clock::now();
    auto plan = predictor_->predict(input);
    trace_->add({.role = TraceRole::hash_building,
                 .name = "predict batch " + std::to_string(input.batch.number),
                 .begin = begin,
                 .end = TraceSpan::Clock::now()});
    return plan;
  }
  void observe(std::uint64_t batch, std::uint32_t layer, Matrix<std::uint16_t const> experts) {
    predictor_->observe(batch, layer, experts);
  }

 private:
  AnyPredictor* predictor_;
  Trace* trace_;
};
static_assert(Predictor<TracedPredictor>);

/// Another model; tells when it stepped. Of a step over experts the store says how long it waited, and the wait is
/// drawn first: where it is, unless the event is larger than the slots and comes in several waves. One state at a time.
class TracedModel {
 public:
  using State = SwitchEncoder::State;

  TracedModel(SwitchEncoder& model, ExpertStore const& store, Trace& trace)
      : model_(&model), store_(&store), trace_(&trace) {}

  std::uint32_t moe_layers() const noexcept { return model_->moe_layers(); }
  Matrix<float const> embeddings(State& state) { return model_->embeddings(state); }
  Routing<> routing(State& state) { return model_->routing(state); }

  Status begin(TokenBatch const& batch, State& state) {
    batch_ = batch.number;
    return timed("embed", [&] { return model_->begin(batch, state); });
  }
  Status run_to(std::uint32_t layer, State& state, ThreadPool& pool) {
    return timed("dense, to layer " + std::to_string(layer), [&] { return model_->run_to(layer, state, pool); });
  }
  Status route(std::uint32_t layer, State& state, ThreadPool& pool) {
    return timed("route layer " + std::to_string(layer), [&] { return model_->route(layer, state, pool); });
  }
  Status run_moe(std::uint32_t layer, State& state, ThreadPool& pool, PlanPosition position) {
    auto const experts = expert_set(layer, model_->routing(state).experts);
    auto const stalled_before = store_->stats().stall_ns;
    auto const begin = TraceSpan::Clock::now();
    Status status = model_->run_moe(layer, state, pool, position);
    auto const end = TraceSpan::Clock::now();
    auto const stalled = std::chrono::nanoseconds(store_->stats().stall_ns - stalled_before);
    auto const ready = std::min(begin + stalled, end);
    if (stalled.count() > 0) {
      trace_->add({.name = label("WAIT for layer " + std::to_string(layer)),
                   .begin = begin,
                   .end = ready,
                   .experts = experts,
                   .is_wait = true});
    }
    trace_->add(
        {.name = label("experts of layer " + std::to_string(layer)), .begin = ready, .end = end, .experts = experts});
    return status;
  }
  Status finish(State& state, ThreadPool& pool) {
    return timed("finish", [&] { return model_->finish(state, pool); });
  }

 private:
  std::string label(std::string const& step) const { return step + ", batch " + std::to_string(batch_); }

  template <class Step>
  Status timed(std::string const& name, Step const& step) {
    auto const begin = TraceSpan::Clock::now();
    Status status = step();
    trace_->add({.name = label(name), .begin = begin, .end = TraceSpan::Clock::now()});
    return status;
  }

  SwitchEncoder* model_;
  ExpertStore const* store_;
  Trace* trace_;
  std::uint64_t batch_ = 0;
};
static_assert(SteppingModel<TracedModel>);

}  // namespace sida::bench
