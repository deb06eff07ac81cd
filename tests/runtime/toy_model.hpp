#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sida/core/expert_layout.hpp"
#include "sida/core/memory.hpp"
#include "sida/runtime/batch_steps.hpp"
#include "sida/runtime/stepping_model.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::test {

inline constexpr std::uint32_t kLayers = 2;
inline constexpr std::uint32_t kExperts = 8;  // of each layer

/// Experts of one page, whose first byte tells them apart.
class ToySource final : public ExpertSource {
 public:
  std::function<void()> on_read;  // on the store's threads; set before there is a store

  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return counts_; }
  std::size_t record_bytes(ExpertId) const noexcept override { return kRecordAlignment; }
  Status read(ExpertId id, std::span<std::byte> dst) const override {
    if (on_read) on_read();
    std::memset(dst.data(), 0, kRecordAlignment);
    dst[0] = static_cast<std::byte>(id.layer * kExperts + id.expert + 1);
    return {};
  }

 private:
  std::vector<std::uint32_t> counts_ = std::vector<std::uint32_t>(kLayers, kExperts);
};

struct ToyStore {
  std::shared_ptr<ToySource> source = std::make_shared<ToySource>();
  HostMemory memory;
  std::unique_ptr<ExpertStore> store;

  explicit ToyStore(std::uint32_t slots, std::function<void()> on_read = {}) {
    source->on_read = std::move(on_read);
    StoreOptions options;
    options.budget_bytes = slots * kRecordAlignment;
    auto opened = ExpertStore::open(*source, make_host_tier(source, memory, 2), options);
    store = *std::move(opened);
  }
};

/// Token t of a batch goes to expert t % kExperts in each layer. A batch's answer is the sum of what its experts hold.
/// `on_step` sees the number of each step, from 0 over the whole run, before it is done; a failure is the step's.
class ToyModel {
 public:
  struct State {
    std::vector<std::int32_t> ids;
    HostRouting routing;
    std::uint64_t sum = 0;
  };

  explicit ToyModel(ExpertStore& store) : store_(&store) {}

  std::function<Status(int step)> on_step;
  int steps = 0;
  int routed = 0;

  std::uint32_t moe_layers() const noexcept { return kLayers; }
  Status begin(TokenBatch const& batch, State& state) {
    state.ids = batch.ids;
    state.sum = 0;
    return step();
  }
  Matrix<float const> embeddings(State&) { return {}; }
  Status run_to(std::uint32_t, State& state, ThreadPool&) {
    state.routing.resize(static_cast<std::int64_t>(state.ids.size()), 1);
    return step();
  }
  Status route(std::uint32_t, State& state, ThreadPool&) {
    ++routed;
    Routing<> const routing = state.routing.view();
    for (std::int64_t t = 0; t < routing.tokens(); ++t) {
      routing.experts(t, 0) =
          static_cast<std::uint16_t>(static_cast<std::uint32_t>(state.ids[static_cast<std::size_t>(t)]) % kExperts);
      routing.weights(t, 0) = 1;
    }
    return step();
  }
  Routing<> routing(State& state) { return state.routing.view(); }
  Status run_moe(std::uint32_t layer, State& state, ThreadPool&, PlanPosition position) {
    if (Status status = step(); !status) return status;
    auto const experts = expert_set(layer, state.routing.view().experts);
    auto event = store_->begin_event(experts, position);
    if (!event) return event.error();
    while (!event->done()) {
      auto const wave = event->next_wave(StreamRef::host());
      if (!wave) return wave.error();
      for (auto const& expert : wave->experts()) state.sum += std::to_integer<std::uint64_t>(*expert.data);
    }
    return {};
  }
  Status finish(State&, ThreadPool&) { return step(); }

 private:
  Status step() {
    int const number = steps++;
    return on_step ? on_step(number) : Status();
  }

  ExpertStore* store_;
};
static_assert(SteppingModel<ToyModel>);

inline constexpr int kStepsPerBatch = 2 + 3 * static_cast<int>(kLayers);

/// Batches of one sequence of one token: batch i holds token i.
struct ToyBatches {
  std::uint64_t count = 0;
  std::function<Status(std::uint64_t batch)> on_next;
  std::uint64_t made = 0;

  Result<std::optional<TokenBatch>> next() {
    if (on_next) {
      if (Status status = on_next(made); !status) return status;
    }
    if (made == count) return std::optional<TokenBatch>();
    TokenBatch batch;
    batch.number = made;
    auto const id = static_cast<std::int32_t>(made++);
    batch.append(std::span(&id, 1));
    return std::optional<TokenBatch>(std::move(batch));
  }
};

/// The answer of batch `number`: its expert's byte in each layer.
inline std::uint64_t expected_sum(std::uint64_t number) {
  std::uint64_t sum = 0;
  for (std::uint32_t layer = 0; layer < kLayers; ++layer)
    sum += std::uint64_t{layer} * kExperts + number % kExperts + 1;
  return sum;
}

/// Knows where each token goes, or claims `offset` experts beside it.
struct ToyPredictor {
  std::uint32_t offset = 0;
  bool names_tokens = false;  // as predicted mode needs it
  std::function<Status(std::uint64_t batch)> on_predict;
  std::uint64_t observed = 0;

  Result<ActivationPlan> predict(PredictorInput const& input) {
    if (on_predict) {
      if (Status status = on_predict(input.batch.number); !status) return status;
    }
    ActivationPlan plan;
    plan.tokens = input.batch.tokens();
    plan.k = 1;
    plan.layers.resize(kLayers);
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
      auto const token = static_cast<std::uint32_t>(input.batch.ids.front());
      std::uint32_t const expert = (token + offset) % kExperts;
      plan.layers[layer].expert_set = {{layer, expert}};
      if (names_tokens) {
        plan.layers[layer].experts = {static_cast<std::uint16_t>(expert)};
        plan.layers[layer].alphas = {to_fp16(0.5F)};
      }
    }
    return plan;
  }
  void observe(std::uint64_t, std::uint32_t, Matrix<std::uint16_t const>) { ++observed; }
};
static_assert(Predictor<ToyPredictor>);

struct ToyObserver {
  std::vector<std::uint64_t> started_batches;
  std::vector<std::pair<std::uint64_t, std::uint32_t>> routed_layers;
  std::vector<std::uint64_t> finished_batches;
  std::vector<std::uint64_t> sums;
  std::function<Status(std::uint64_t batch)> on_finished;

  void started(TokenBatch const& batch) { started_batches.push_back(batch.number); }
  void routed(TokenBatch const& batch, std::uint32_t layer, Routing<>) {
    routed_layers.emplace_back(batch.number, layer);
  }
  Status finished(TokenBatch const& batch, ToyModel::State& state) {
    finished_batches.push_back(batch.number);
    sums.push_back(state.sum);
    return on_finished ? on_finished(batch.number) : Status();
  }
};
static_assert(BatchObserver<ToyObserver, ToyModel>);

}  // namespace sida::test
