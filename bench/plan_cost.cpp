// What does a plan cost beside the prediction? From each token's experts to the sets of every layer, and into a store
// and out of it again, for one sentence and for a batch of eight; 6 MoE layers of 64 experts.
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include <benchmark/benchmark.h>

#include "sida/core/memory.hpp"
#include "sida/route/activation_plan.hpp"
#include "sida/runtime/plan_queue.hpp"
#include "sida/store/expert_store.hpp"

namespace {

using namespace sida;

constexpr std::uint32_t kLayers = 6;
constexpr std::uint32_t kExperts = 64;
constexpr std::int64_t kTokens = 24;  // of a sentence
constexpr std::size_t kRecordBytes = 4096;

/// What routers chose for some sentences: [tokens, 1] for each layer.
std::vector<std::vector<std::uint16_t>> random_routing(std::int64_t sentences, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::vector<std::uint16_t>> layers(kLayers);
  for (auto& layer : layers) {
    layer.resize(static_cast<std::size_t>(sentences * kTokens));
    for (auto& expert : layer) expert = static_cast<std::uint16_t>(random() % kExperts);
  }
  return layers;
}

ActivationPlan make_plan(std::vector<std::vector<std::uint16_t>> const& routing) {
  ActivationPlan plan;
  plan.tokens = static_cast<std::int64_t>(routing.front().size());
  plan.k = 1;
  plan.layers.resize(kLayers);
  for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
    plan.layers[layer].experts = routing[layer];
    plan.layers[layer].expert_set = expert_set(layer, {routing[layer].data(), plan.tokens, 1});
  }
  return plan;
}

void count_tokens(benchmark::State& state) {
  state.counters["s_per_token"] =
      benchmark::Counter(static_cast<double>(state.range(0) * kTokens),
                         benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

void plan_from_routing(benchmark::State& state) {
  auto const routing = random_routing(state.range(0), 1);
  for (auto _ : state) {
    auto plan = make_plan(routing);
    benchmark::DoNotOptimize(plan.layers.data());
  }
  count_tokens(state);
}
BENCHMARK(plan_from_routing)->ArgName("sentences")->Arg(1)->Arg(8)->Unit(benchmark::kMicrosecond);

/// Records of zeros: bytes are not what is measured.
class ZeroSource final : public ExpertSource {
 public:
  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return layers_; }
  std::size_t record_bytes(ExpertId) const noexcept override { return kRecordBytes; }
  Status read(ExpertId, std::span<std::byte>) const override { return {}; }

 private:
  std::vector<std::uint32_t> layers_ = std::vector<std::uint32_t>(kLayers, kExperts);
};

/// Into a store that has everything, beside the plans of the batches ahead, and out of it again.
void submit_and_retire(benchmark::State& state) {
  HostMemory memory;
  auto const source = std::make_shared<ZeroSource>();
  auto store = ExpertStore::open(
      *source, make_host_tier(source, memory, 1),
      {.budget_bytes = std::size_t{kLayers} * kExperts * kRecordBytes, .policy = PolicyKind::next_use});
  if (!store) return state.SkipWithError(store.message().c_str());
  for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
    std::vector<ExpertId> all;
    for (std::uint32_t expert = 0; expert < kExperts; ++expert) all.push_back({layer, expert});
    if (!(*store)->acquire(all, StreamRef::host())) return state.SkipWithError("acquire failed");
  }
  std::vector<SubmittedPlan> ahead;
  for (std::int64_t i = 0; i < state.range(1); ++i) {
    auto submitted =
        SubmittedPlan::submit(**store, make_plan(random_routing(state.range(0), static_cast<std::uint32_t>(i) + 2)));
    if (!submitted) return state.SkipWithError(submitted.message().c_str());
    ahead.push_back(*std::move(submitted));
  }
  auto const plan = make_plan(random_routing(state.range(0), 1));
  for (auto _ : state) {
    auto submitted = SubmittedPlan::submit(**store, plan);
    if (!submitted) return state.SkipWithError(submitted.message().c_str());
    benchmark::DoNotOptimize(submitted->at(0));
  }
  count_tokens(state);
}
BENCHMARK(submit_and_retire)
    ->ArgNames({"sentences", "ahead"})
    ->ArgsProduct({{1, 8}, {0, 8}})
    ->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
