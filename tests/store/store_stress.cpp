// Several inference threads on one store, with random events, plans right and wrong, failing reads, dropped plans,
// abandoned events and cancellations, for as long as asked: store_stress [SECONDS] [SEED].
// Meant for ThreadSanitizer; also checks every byte that it leases.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/store/store_fixture.hpp"

namespace sida::test {
namespace {

double g_seconds = 2.0;
std::uint64_t g_seed = 1;

/// Fails one read in `one_in`.
class UnreliableSource final : public MemorySource {
 public:
  UnreliableSource(std::uint64_t seed, std::uint64_t one_in)
      : MemorySource({12, 12, 12}, kRecordBytes), state_(seed), one_in_(one_in) {}
  Status read(ExpertId id, std::span<std::byte> dst) const override {
    std::uint64_t const draw = state_.fetch_add(0x9E3779B97F4A7C15U);
    if (((draw ^ draw >> 29) * 0xBF58476D1CE4E5B9U >> 33) % one_in_ == 0) return Error(Errc::io, "injected");
    return MemorySource::read(id, dst);
  }

 private:
  mutable std::atomic<std::uint64_t> state_;
  std::uint64_t one_in_;
};

std::vector<ExpertId> random_event(std::mt19937_64& random, std::uint32_t layer) {
  std::set<ExpertId> ids;
  for (auto i = random() % 7; i > 0; --i) ids.insert({layer, static_cast<std::uint32_t>(random() % 12)});
  return {ids.begin(), ids.end()};
}

/// One inference thread: batches until the store is cancelled.
void infer(ExpertStore& store, UnreliableSource const& source, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (;;) {
    std::vector<std::vector<ExpertId>> events;
    for (std::uint32_t layer = 0; layer < 3; ++layer) events.push_back(random_event(random, layer));
    auto plan = events;
    if (random() % 3 == 0) plan[random() % 3] = random_event(random, static_cast<std::uint32_t>(random() % 3));
    PlanId id = PlanId::none;
    if (random() % 4 != 0) id = *store.submit_plan(plan);
    for (std::uint32_t layer = 0; layer < 3; ++layer) {
      auto event = store.begin_event(events[layer], {id, layer});
      ASSERT_TRUE(event) << event.message();
      while (!event->done() && random() % 50 != 0) {  // sometimes gives up half way
        auto wave = event->next_wave(StreamRef::host());
        if (wave.code() == Errc::cancelled) return;
        if (wave.code() == Errc::io) continue;  // retry
        ASSERT_TRUE(wave) << wave.message();
        for (auto const& expert : wave->experts()) ASSERT_TRUE(source.holds(expert.id, expert.data));
        if (random() % 8 == 0) std::this_thread::yield();
      }
    }
    if (random() % 2 == 0) store.drop_plan(id);
  }
}

TEST(StoreStress, SurvivesFourThreadsRandomPlansFaultsAndCancellations) {
  std::mt19937_64 random(g_seed);
  auto const end = std::chrono::steady_clock::now() + std::chrono::duration<double>(g_seconds);
  int rounds = 0;
  while (std::chrono::steady_clock::now() < end && !HasFatalFailure()) {
    SCOPED_TRACE("round " + std::to_string(rounds++) + " of seed " + std::to_string(g_seed));
    auto const source = std::make_shared<UnreliableSource>(random(), 20 + random() % 100);
    HostMemory memory;
    std::uint64_t const slots = 1 + random() % 20;
    auto const policy = static_cast<PolicyKind>(random() % 5);
    auto opened = ExpertStore::open(*source, make_host_tier(source, memory, 1 + static_cast<unsigned>(random() % 3)),
                                    {.budget_bytes = slots * kSlotBytes,
                                     .policy = policy,
                                     .prefetch_depth = static_cast<std::uint32_t>(random() % 4)});
    ASSERT_TRUE(opened);
    auto const& store = *opened;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back([&, seed = random()] { infer(*store, *source, seed); });
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 400));
    store->cancel();
    for (auto& thread : threads) thread.join();
    EXPECT_LE(store->stats().peak_resident_bytes, slots * kSlotBytes);
  }
  RecordProperty("rounds", rounds);
}

}  // namespace
}  // namespace sida::test

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc > 1) sida::test::g_seconds = std::strtod(argv[1], nullptr);
  if (argc > 2) sida::test::g_seed = std::strtoull(argv[2], nullptr, 10);
  return RUN_ALL_TESTS();
}
