// Errors of the source, of memory and of timing: they reach the caller, and the store stays usable.
#include <atomic>
#include <stdexcept>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/store/store_fixture.hpp"

namespace sida::test {
namespace {

using ::testing::HasSubstr;

/// Fails its first `failures` reads.
class FlakySource final : public MemorySource {
 public:
  FlakySource(int failures, bool throws) : MemorySource({8}, kRecordBytes), failures_(failures), throws_(throws) {}
  Status read(ExpertId id, std::span<std::byte> dst) const override {
    if (failures_.fetch_sub(1) > 0) {
      if (throws_) throw std::runtime_error("disk on fire");
      return Error(Errc::corrupt, to_string(id) + ": injected");
    }
    return MemorySource::read(id, dst);
  }

 private:
  mutable std::atomic<int> failures_;
  bool throws_;
};

std::unique_ptr<ExpertStore> open_flaky(std::shared_ptr<FlakySource> const& source, MemoryResource& memory) {
  auto store = ExpertStore::open(*source, make_host_tier(source, memory, 2), {.budget_bytes = 3 * kSlotBytes});
  EXPECT_TRUE(store) << store.message();
  return *std::move(store);
}

TEST(StoreFaults, ReportsAFailedReadAndServesTheRetry) {
  HostMemory memory;
  auto const source = std::make_shared<FlakySource>(2, false);
  auto const store = open_flaky(source, memory);
  auto event = store->begin_event(experts(0, {1, 2}));
  ASSERT_TRUE(event);
  auto const failed = event->next_wave(StreamRef::host());
  EXPECT_EQ(failed.code(), Errc::corrupt);
  EXPECT_THAT(failed.message(), HasSubstr("injected"));
  auto const retried = event->next_wave(StreamRef::host());
  ASSERT_TRUE(retried) << retried.message();
  for (auto const& expert : retried->experts()) EXPECT_TRUE(source->holds(expert.id, expert.data));
  EXPECT_GE(store->stats().failed_loads, 1U);
}

TEST(StoreFaults, TurnsAnExceptionOfTheSourceIntoAnError) {
  HostMemory memory;
  auto const store = open_flaky(std::make_shared<FlakySource>(1, true), memory);
  auto const wave = store->acquire(experts(0, {4}), StreamRef::host());
  EXPECT_EQ(wave.code(), Errc::io);
  EXPECT_THAT(wave.message(), HasSubstr("layer 0 expert 4"));
  EXPECT_THAT(wave.message(), HasSubstr("disk on fire"));
  EXPECT_TRUE(store->acquire(experts(0, {4}), StreamRef::host()));
}

TEST(StoreFaults, TellsEveryWaiterOfAFailedFill) {
  auto const test = open_store({.tier = TierKind::manual});
  std::atomic<int> failures{0};
  std::vector<std::thread> waiters;
  for (int i = 0; i < 3; ++i) {
    waiters.emplace_back([&] {
      auto const wave = test->acquire(experts(0, {2}), StreamRef::host());
      if (!wave && wave.code() == Errc::io) ++failures;
    });
  }
  while (test->stats().events < 3) std::this_thread::yield();
  test.fills->release({0, 2}, Error(Errc::io, "injected"));
  for (auto& waiter : waiters) waiter.join();
  EXPECT_EQ(failures, 3);
  std::thread retry([&] { run_event(test, experts(0, {2})); });
  test.fills->wait_for(1);
  test.fills->release({0, 2});
  retry.join();
}

TEST(StoreFaults, LosesNoSlotToFailures) {
  auto const test = open_store({.slots = 2, .tier = TierKind::manual});
  for (int round = 0; round < 5; ++round) {
    std::thread demand([&] { EXPECT_EQ(test->acquire(experts(0, {0, 1}), StreamRef::host()).code(), Errc::io); });
    test.fills->wait_for(2);
    test.fills->release({0, 1}, Error(Errc::io, "injected"));
    test.fills->release({0, 0}, Error(Errc::io, "injected"));
    demand.join();
  }
  std::thread demand([&] { run_event(test, experts(1, {6, 7})); });
  test.fills->wait_for(2);
  test.fills->release({1, 6});
  test.fills->release({1, 7});
  demand.join();
}

TEST(StoreFaults, ReturnsCancelledToAWaiterForAFill) {
  auto const test = open_store({.tier = TierKind::manual});
  std::thread demand([&] { EXPECT_EQ(test->acquire(experts(0, {0}), StreamRef::host()).code(), Errc::cancelled); });
  test.fills->wait_for(1);
  test->cancel();
  demand.join();
}

TEST(StoreFaults, ServesWaitersInTicketOrder) {
  auto const test = open_store({.slots = 2, .tier = TierKind::manual});
  std::thread loader([&] { test.fills->wait_for(1), test.fills->release({0, 0}); });
  auto held = test->acquire(experts(0, {0}), StreamRef::host());
  loader.join();
  ASSERT_TRUE(held);
  std::atomic<int> turn{0};
  std::thread large([&] {
    auto const wave = test->acquire(experts(1, {0, 1}), StreamRef::host());  // needs both slots
    ASSERT_TRUE(wave);
    EXPECT_EQ(turn.fetch_add(1), 0);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::thread small([&] {
    auto const wave = test->acquire(experts(0, {0}), StreamRef::host());  // resident, but came later
    ASSERT_TRUE(wave);
    EXPECT_EQ(turn.fetch_add(1), 1);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(turn, 0);
  held->release();
  test.fills->wait_for(2);
  test.fills->release({1, 1});
  test.fills->release({1, 0});
  large.join();
  test.fills->wait_for(1);
  test.fills->release({0, 0});
  small.join();
}

TEST(StoreFaults, IsNotResetUnderAnAcquireThatWaitsForItsFill) {
  auto test = open_store({.tier = TierKind::manual});
  std::jthread acquirer([&] {
    auto const wave = test->acquire(experts(0, {3}), StreamRef::host());
    ASSERT_TRUE(wave) << wave.message();
    expect_own_bytes(test, *wave);
  });
  test.fills->wait_for(1);
  EXPECT_EQ(test->reset().code(), Errc::invalid_argument);
  test.fills->release({0, 3});
  acquirer.join();
  EXPECT_TRUE(test->reset());
}

TEST(StoreFaults, IsNotResetUnderAnAcquireThatBeganMeanwhile) {
  auto test = open_store({.tier = TierKind::manual});
  std::vector<std::vector<ExpertId>> const plan{experts(0, {1})};
  ASSERT_TRUE(test->submit_plan(plan));
  test.fills->wait_for(1);
  Status reset;
  std::jthread resetter([&] { reset = test->reset(); });  // waits for the prefetch
  std::jthread acquirer([&] {
    auto const wave = test->acquire(experts(0, {3}), StreamRef::host());
    ASSERT_TRUE(wave) << wave.message();
    expect_own_bytes(test, *wave);
  });
  test.fills->wait_for(2);
  test.fills->release({0, 1});
  test.fills->release({0, 3});
  acquirer.join();
  resetter.join();
  // Refused where it saw the acquire, done where it came after all of it.
  EXPECT_TRUE(reset || reset.code() == Errc::invalid_argument) << reset.message();
  EXPECT_TRUE(test->reset());
}

TEST(StoreFaults, ClosesWithFillsUnderWay) {
  for (auto const tier : {TierKind::host, TierKind::manual}) {
    auto test = open_store({.tier = tier});
    test.source->set_delay(std::chrono::milliseconds(2));
    std::vector<std::vector<ExpertId>> const plan{experts(0, {0, 1, 2, 3}), experts(1, {0, 1})};
    ASSERT_TRUE(test->submit_plan(plan));
    test.store.reset();
  }
}

class NoMemory final : public MemoryResource {
 public:
  Result<void*> allocate(std::size_t bytes, std::size_t) override {
    return Error(Errc::out_of_memory, std::to_string(bytes) + " bytes");
  }
  void deallocate(void*, std::size_t, std::size_t) noexcept override {}
  Tier space() const noexcept override { return Tier::host; }
};

TEST(StoreFaults, SaysHowManyBytesItCouldNotGet) {
  NoMemory memory;
  auto const source = std::make_shared<MemorySource>(std::vector<std::uint32_t>{8}, kRecordBytes);
  auto const store = ExpertStore::open(*source, make_host_tier(source, memory, 1), {.budget_bytes = 2 * kSlotBytes});
  EXPECT_EQ(store.code(), Errc::out_of_memory);
  EXPECT_THAT(store.message(), HasSubstr("16384 bytes"));
}

}  // namespace
}  // namespace sida::test
