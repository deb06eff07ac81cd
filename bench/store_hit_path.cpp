// What does a hit cost? A wave of n experts that are all resident, leased and given back, with nobody else about; and
// the plans that tell a store what comes.
#include <cstdint>
#include <memory>
#include <vector>

#include <benchmark/benchmark.h>

#include "sida/core/memory.hpp"
#include "sida/store/expert_store.hpp"

namespace {

using namespace sida;

constexpr std::uint32_t kLayers = 6;
constexpr std::uint32_t kExperts = 64;

/// Small records of zeros: bytes are not what is measured.
class ZeroSource final : public ExpertSource {
 public:
  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return layers_; }
  std::size_t record_bytes(ExpertId) const noexcept override { return 4096; }
  Status read(ExpertId, std::span<std::byte>) const override { return {}; }

 private:
  std::vector<std::uint32_t> layers_ = std::vector<std::uint32_t>(kLayers, kExperts);
};

struct WarmStore {
  HostMemory memory;
  std::unique_ptr<ExpertStore> store;

  explicit WarmStore(PolicyKind policy) {
    auto const source = std::make_shared<ZeroSource>();
    auto opened = ExpertStore::open(*source, make_host_tier(source, memory, 1),
                                    {.budget_bytes = std::size_t{kLayers} * kExperts * 4096, .policy = policy});
    if (!opened) return;
    store = *std::move(opened);
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
      if (store && !store->acquire(experts(layer, kExperts), StreamRef::host())) store = nullptr;
    }
  }

  static std::vector<ExpertId> experts(std::uint32_t layer, std::uint32_t count) {
    std::vector<ExpertId> ids(count);
    for (std::uint32_t i = 0; i < count; ++i) ids[i] = {layer, i * (kExperts / count)};
    return ids;
  }
};

void wave_of_hits(benchmark::State& state, PolicyKind policy) {
  WarmStore const warm(policy);
  if (!warm.store) return state.SkipWithError("the store does not open");
  auto const ids = WarmStore::experts(0, static_cast<std::uint32_t>(state.range(0)));
  for (auto _ : state) {
    auto wave = warm.store->acquire(ids, StreamRef::host());
    if (!wave) return state.SkipWithError("acquire failed");
    benchmark::DoNotOptimize(wave->experts().data());
  }
  state.counters["bar_ns"] = 200.0 + 50.0 * static_cast<double>(state.range(0));
}
BENCHMARK_CAPTURE(wave_of_hits, lfru, PolicyKind::lfru)->RangeMultiplier(4)->Range(1, kExperts);
BENCHMARK_CAPTURE(wave_of_hits, next_use, PolicyKind::next_use)->RangeMultiplier(4)->Range(1, kExperts);

/// One batch's plan into a store that has everything, and out of it again.
void submit_and_drop_plan(benchmark::State& state) {
  WarmStore const warm(PolicyKind::next_use);
  if (!warm.store) return state.SkipWithError("the store does not open");
  std::vector<std::vector<ExpertId>> events;
  for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
    events.push_back(WarmStore::experts(layer, static_cast<std::uint32_t>(state.range(0))));
  }
  for (auto _ : state) {
    auto const plan = warm.store->submit_plan(events);
    if (!plan) return state.SkipWithError("submit failed");
    warm.store->drop_plan(*plan);
  }
}
BENCHMARK(submit_and_drop_plan)->RangeMultiplier(4)->Range(1, kExperts);

}  // namespace

BENCHMARK_MAIN();
