#include "sida/runtime/bounded_queue.hpp"

#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace sida {
namespace {

Error some_error() { return {Errc::io, "disk on fire"}; }

TEST(BoundedQueue, GivesValuesInOrderAndThenTheEnd) {
  BoundedQueue<int> queue(3);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(queue.push(i));
  queue.close();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(**queue.pop(), i);
  auto const end = queue.pop();
  ASSERT_TRUE(end);
  EXPECT_FALSE(end->has_value());
}

TEST(BoundedQueue, HoldsAtMostItsCapacity) {
  BoundedQueue<int> queue(2);
  std::atomic<int> pushed{0};
  std::thread producer([&] {
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(queue.push(i));
      ++pushed;
    }
    queue.close();
  });
  int popped = 0;
  for (;;) {
    EXPECT_LE(queue.size(), 2U);
    auto const value = queue.pop();
    ASSERT_TRUE(value);
    if (!value->has_value()) break;
    EXPECT_EQ(**value, popped);
    ++popped;
    EXPECT_LE(pushed.load(), popped + 3);  // two inside, one counted late
  }
  producer.join();
  EXPECT_EQ(popped, 100);
}

TEST(BoundedQueue, CountsACapacityOfNothingAsOne) {
  BoundedQueue<int> queue(0);
  ASSERT_TRUE(queue.push(7));
  EXPECT_EQ(**queue.pop(), 7);
}

TEST(BoundedQueue, DeliversTheErrorOfCloseAfterWhatIsLeft) {
  BoundedQueue<int> queue(2);
  ASSERT_TRUE(queue.push(1));
  queue.close(some_error());
  EXPECT_EQ(**queue.pop(), 1);
  EXPECT_EQ(queue.pop().code(), Errc::io);
  EXPECT_EQ(queue.pop().message(), "disk on fire");
}

TEST(BoundedQueue, RefusesAPushAfterClose) {
  BoundedQueue<int> queue(2);
  queue.close();
  EXPECT_EQ(queue.push(1).code(), Errc::invalid_argument);
}

TEST(BoundedQueue, DropsWhatIsLeftWhenCancelled) {
  BoundedQueue<std::shared_ptr<int>> queue(2);
  auto const value = std::make_shared<int>(1);
  ASSERT_TRUE(queue.push(value));
  queue.cancel(some_error());
  EXPECT_EQ(value.use_count(), 1);
  EXPECT_EQ(queue.pop().code(), Errc::io);
  EXPECT_EQ(queue.push(value).code(), Errc::io);
  EXPECT_EQ(queue.wait_for_room().code(), Errc::io);
}

TEST(BoundedQueue, KeepsTheFirstError) {
  BoundedQueue<int> queue(1);
  queue.cancel(some_error());
  queue.cancel({Errc::cancelled, "second"});
  queue.close({Errc::corrupt, "third"});
  EXPECT_EQ(queue.pop().code(), Errc::io);

  BoundedQueue<int> closed(1);
  closed.close(some_error());
  closed.cancel({Errc::cancelled, "second"});
  EXPECT_EQ(closed.pop().code(), Errc::io);
}

TEST(BoundedQueue, CancelOverridesAnOrdinaryClose) {
  BoundedQueue<int> queue(1);
  ASSERT_TRUE(queue.push(1));
  queue.close();
  queue.cancel(some_error());
  EXPECT_EQ(queue.pop().code(), Errc::io);
}

TEST(BoundedQueue, WakesABlockedPush) {
  BoundedQueue<int> queue(1);
  ASSERT_TRUE(queue.push(1));
  std::thread producer([&] { EXPECT_EQ(queue.push(2).code(), Errc::io); });
  queue.cancel(some_error());
  producer.join();
}

TEST(BoundedQueue, WakesABlockedPop) {
  for (bool const cancel : {false, true}) {
    BoundedQueue<int> queue(1);
    std::thread consumer([&] { EXPECT_EQ(queue.pop().code(), Errc::io); });
    if (cancel) {
      queue.cancel(some_error());
    } else {
      queue.close(some_error());
    }
    consumer.join();
  }
}

TEST(BoundedQueue, WakesWhoWaitsForAFullQueue) {
  BoundedQueue<int> full(2);
  std::thread producer([&] {
    ASSERT_TRUE(full.push(1));
    ASSERT_TRUE(full.push(2));
  });
  full.wait_until_full();
  EXPECT_EQ(full.size(), 2U);
  producer.join();

  BoundedQueue<int> closed(2);
  std::thread closer([&] { closed.close(); });
  closed.wait_until_full();
  closer.join();
}

TEST(BoundedQueue, TakesMoveOnlyValues) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  ASSERT_TRUE(queue.push(std::make_unique<int>(5)));
  auto value = queue.pop();
  ASSERT_TRUE(value);
  EXPECT_EQ(***value, 5);
}

TEST(BoundedQueue, LosesNothingBetweenManyThreads) {
  constexpr int kProducers = 3;
  constexpr int kEach = 200;
  BoundedQueue<int> queue(4);
  std::atomic<int> sum{0};
  std::vector<std::thread> producers;
  std::vector<std::thread> consumers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&] {
      for (int i = 1; i <= kEach; ++i) ASSERT_TRUE(queue.push(i));
    });
  }
  for (int c = 0; c < 2; ++c) {
    consumers.emplace_back([&] {
      for (;;) {
        auto const value = queue.pop();
        ASSERT_TRUE(value);
        if (!value->has_value()) return;
        sum += **value;
      }
    });
  }
  for (auto& thread : producers) thread.join();
  queue.close();
  for (auto& thread : consumers) thread.join();
  EXPECT_EQ(sum.load(), kProducers * kEach * (kEach + 1) / 2);
}

}  // namespace
}  // namespace sida
