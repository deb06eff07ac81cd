#include "sida/cuda/device_tier.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "sida/store/expert_store.hpp"
#include "tests/cuda/device_fixture.hpp"
#include "tests/cuda/pool_memory.hpp"
#include "tests/support/memory_source.hpp"

namespace sida {
namespace {

using test::must;
using test::take;

constexpr std::size_t kRecordBytes = 70'000;
constexpr std::size_t kSlotBytes = 73'728;

struct ChainSetup {
  std::uint32_t host_slots = 24;
  std::uint32_t slots = 6;
  PolicyKind policy = PolicyKind::lru;
  bool pinned = true;
  std::uint32_t prefetch_depth = 4;
};

/// Disk (made up) → host → device.
struct Chain {
  std::shared_ptr<test::MemorySource> source =
      std::make_shared<test::MemorySource>(std::vector<std::uint32_t>{8, 8, 8}, kRecordBytes);
  HostMemory host_memory;
  cuda::PinnedMemory pinned_memory;
  cuda::DeviceMemory device_memory;
  std::unique_ptr<ExpertStore> host;
  std::unique_ptr<ExpertStore> store;

  explicit Chain(ChainSetup const& setup) {
    MemoryResource& memory = setup.pinned ? static_cast<MemoryResource&>(pinned_memory) : host_memory;
    host = take(ExpertStore::open(*source, make_host_tier(source, memory, 2),
                                  {.budget_bytes = setup.host_slots * kSlotBytes, .policy = setup.policy}));
    store = take(ExpertStore::open(
        *source, cuda::make_device_tier(*host, device_memory, {.host_is_pinned = setup.pinned, .poison = true}),
        {.budget_bytes = setup.slots * kSlotBytes, .policy = setup.policy, .prefetch_depth = setup.prefetch_depth}));
  }
};

/// A copy of a leased record that the reader's stream makes, and what it must hold.
struct Seen {
  ExpertId id;
  std::byte* bytes;  // pinned
};

/// Reads every wave on streams that are never waited for before the end: only the store's own ordering keeps a slot
/// from being read too early or refilled too soon.
class Reader {
 public:
  Reader() : buffer_(take(Buffer::allocate(memory_, kSlotBytes * kRoom))) {
    for (auto& stream : streams_) stream.emplace(take(cuda::Stream::create()));
  }

  cudaStream_t next_stream() { return streams_[turn_++ % 2]->get(); }
  void read(Wave& wave, cudaStream_t stream) {
    for (LeasedExpert const& expert : wave.experts()) {
      ASSERT_LT(seen_.size(), kRoom);
      std::byte* const to = buffer_.bytes().data() + seen_.size() * kSlotBytes;
      must(cudaMemcpyAsync(to, expert.data, kRecordBytes, cudaMemcpyDeviceToHost, stream));
      seen_.push_back({expert.id, to});
    }
  }
  void check(test::MemorySource const& source) {
    must(cudaDeviceSynchronize());
    for (Seen const& seen : seen_) EXPECT_TRUE(source.holds(seen.id, seen.bytes)) << to_string(seen.id);
    seen_.clear();
  }
  bool is_full() const { return seen_.size() + 24 > kRoom; }

 private:
  static constexpr std::size_t kRoom = 400;
  cuda::PinnedMemory memory_;
  Buffer buffer_;
  std::optional<cuda::Stream> streams_[2];
  std::size_t turn_ = 0;
  std::vector<Seen> seen_;
};

std::vector<ExpertId> random_event(std::mt19937& random) {
  std::vector<std::uint32_t> all(8);
  std::iota(all.begin(), all.end(), 0U);
  std::shuffle(all.begin(), all.end(), random);
  auto const layer = static_cast<std::uint32_t>(random() % 3);
  std::vector<ExpertId> ids;
  for (std::size_t i = 0; i < 1 + random() % 8; ++i) ids.push_back({layer, all[i]});
  return ids;
}

/// Runs one event through all its waves, each on another stream than the one before.
void read_event(Chain const& chain, Reader& reader, std::vector<ExpertId> const& ids, PlanPosition position = {}) {
  auto event = take(chain.store->begin_event(ids, position));
  while (!event.done()) {
    cudaStream_t const stream = reader.next_stream();
    Wave wave = take(event.next_wave(cuda::stream_ref(stream)));
    reader.read(wave, stream);
  }
  if (reader.is_full()) reader.check(*chain.source);
}

class CudaTier : public test::DeviceTest {
 protected:
  static void run(ChainSetup const& setup, unsigned seed, int events, bool plans) {
    Chain chain(setup);
    Reader reader;
    std::mt19937 random(seed);
    std::deque<std::pair<PlanId, std::vector<ExpertId>>> planned;
    for (int i = 0; i < events; ++i) {
      if (plans && planned.empty()) {
        std::vector<std::vector<ExpertId>> next;
        for (int e = 0; e < 4; ++e) next.push_back(random_event(random));
        PlanId const plan = take(chain.store->submit_plan(next));
        for (auto& event : next) planned.emplace_back(plan, std::move(event));
      }
      std::vector<ExpertId> ids = random_event(random);
      PlanPosition position;
      if (plans) {
        position = {planned.front().first, static_cast<std::uint32_t>(4 - planned.size())};
        if (random() % 4 != 0) ids = planned.front().second;  // else the plan was wrong
        planned.pop_front();
      }
      read_event(chain, reader, ids, position);
    }
    reader.check(*chain.source);
    EXPECT_LE(chain.store->stats().peak_resident_bytes, setup.slots * kSlotBytes);
  }
};

TEST_F(CudaTier, ReadersSeeTheirExpertsWhateverTheSlots) {
  for (std::uint32_t const slots : {1U, 2U, 6U, 24U}) {
    SCOPED_TRACE(slots);
    run({.slots = slots}, slots, 200, false);
  }
}

TEST_F(CudaTier, AndWithPlansRightAndWrong) {
  for (PolicyKind const policy : {PolicyKind::fifo, PolicyKind::lfru, PolicyKind::next_use}) {
    SCOPED_TRACE(to_string(policy));
    run({.slots = 5, .policy = policy}, 11, 200, true);
  }
}

TEST_F(CudaTier, AndThroughAHostTierOfOneSlot) { run({.host_slots = 1, .slots = 3}, 12, 100, true); }

TEST_F(CudaTier, AndFromMemoryThatIsNotPinned) { run({.slots = 3, .pinned = false}, 13, 150, true); }

TEST_F(CudaTier, SeveralThreadsShareAStore) {
  Chain chain({.slots = 9});
  auto const work = [&](unsigned seed) {
    Reader reader;
    std::mt19937 random(seed);
    for (int i = 0; i < 80; ++i) {
      read_event(chain, reader, random_event(random));
    }
    reader.check(*chain.source);
  };
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 3; ++seed) threads.emplace_back(work, seed);
  for (auto& thread : threads) thread.join();
}

TEST_F(CudaTier, AStoreMayGoWhileCopiesAreUnderWay) {
  for (int i = 0; i < 20; ++i) {
    Chain chain({.slots = 12, .policy = PolicyKind::next_use});
    std::mt19937 random(static_cast<unsigned>(i));
    std::vector<std::vector<ExpertId>> plan;
    for (int e = 0; e < 6; ++e) plan.push_back(random_event(random));
    static_cast<void>(take(chain.store->submit_plan(plan)));
  }
  must(cudaDeviceSynchronize());
}

// Readers of a store's slots are waited for before the slots' memory goes.
TEST_F(CudaTier, MayGoBeforeItsReadersHaveRead) {
  test::PoolMemory pool;
  Reader reader;
  auto const source = std::make_shared<test::MemorySource>(std::vector<std::uint32_t>{8}, kRecordBytes);
  cuda::PinnedMemory pinned;
  auto const host =
      take(ExpertStore::open(*source, make_host_tier(source, pinned, 2), {.budget_bytes = 8 * kSlotBytes}));
  for (int i = 0; i < 20; ++i) {
    auto const store =
        take(ExpertStore::open(*source, cuda::make_device_tier(*host, pool), {.budget_bytes = 4 * kSlotBytes}));
    std::vector<ExpertId> const ids{{0, 1}, {0, 3}, {0, 6}};
    cudaStream_t const stream = reader.next_stream();
    Wave wave = take(store->acquire(ids, cuda::stream_ref(stream)));
    reader.read(wave, stream);
  }
  reader.check(*source);
}

TEST_F(CudaTier, RefusesAStreamThatIsAnotherInEachThread) {
  Chain chain({});
  std::vector<ExpertId> const ids{{0, 1}};
  EXPECT_EQ(chain.store->acquire(ids, cuda::stream_ref(cudaStreamPerThread)).code(), Errc::invalid_argument);
  auto const stream = take(cuda::Stream::create());
  EXPECT_TRUE(chain.store->acquire(ids, stream.ref()));
}

// CUDA may give a stream the handle of one that was destroyed with work to do.
TEST_F(CudaTier, TellsAStreamFromAnEarlierOneOfTheSameHandle) {
  Chain chain({.slots = 1});
  Reader reader;
  for (int i = 0; i < 60; ++i) {
    auto const stream = take(cuda::Stream::create());
    std::vector<ExpertId> const ids{{0, static_cast<std::uint32_t>(i / 3 % 8)}};
    Wave wave = take(chain.store->acquire(ids, stream.ref()));
    reader.read(wave, stream.get());
  }
  reader.check(*chain.source);
}

TEST_F(CudaTier, AHostStoreThatWasCancelledIsAnError) {
  Chain chain({});
  chain.host->cancel();
  std::vector<ExpertId> const ids{{0, 1}};
  auto const stream = take(cuda::Stream::create());
  EXPECT_EQ(chain.store->acquire(ids, stream.ref()).code(), Errc::cancelled);
}

TEST_F(CudaTier, WantsDeviceMemoryOverAHostStore) {
  Chain chain({});
  HostMemory host;
  auto const options = StoreOptions{.budget_bytes = kSlotBytes};
  EXPECT_EQ(ExpertStore::open(*chain.source, cuda::make_device_tier(*chain.host, host), options).code(),
            Errc::invalid_argument);
  EXPECT_EQ(ExpertStore::open(*chain.source, cuda::make_device_tier(*chain.store, chain.device_memory), options).code(),
            Errc::invalid_argument);
}

}  // namespace
}  // namespace sida
