#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sida/c.h"

namespace {

using ::testing::HasSubstr;

/// Two layers of three experts of 5000 bytes; every byte is 10 * layer + expert.
struct Engine {
  std::atomic<int> fail{0};  // reads that answer `code`
  std::atomic<bool> throws{false};
  sida_code code = SIDA_IO;
  std::size_t allocated = 0, given_back = 0;
  bool no_memory = false;

  static sida_code read(void* context, sida_expert_id id, void* dst, std::size_t, sida_message* why) {
    auto& engine = *static_cast<Engine*>(context);
    if (engine.throws) throw std::runtime_error("disk on fire");
    if (engine.fail.fetch_sub(1) > 0) {
      std::strncpy(why->text, "bad sector", why->capacity_bytes);
      return engine.code;
    }
    std::memset(dst, static_cast<int>(10 * id.layer + id.expert), 5000);
    return SIDA_OK;
  }
  static void* allocate(void* context, std::size_t bytes, std::size_t alignment) {
    auto& engine = *static_cast<Engine*>(context);
    if (engine.no_memory) return nullptr;
    engine.allocated += bytes;
    return std::aligned_alloc(alignment, bytes);
  }
  static void deallocate(void* context, void* data, std::size_t bytes, std::size_t) {
    static_cast<Engine*>(context)->given_back += bytes;
    std::free(data);
  }
};

class CStore : public ::testing::Test {
 protected:
  Engine engine;
  std::array<std::uint32_t, 2> experts{3, 3};
  std::array<std::uint64_t, 2> record_bytes{5000, 5000};
  sida_source source{sizeof(sida_source), 2, experts.data(), record_bytes.data(), Engine::read, &engine};
  sida_store_options options{};
  sida_store* store = nullptr;
  sida_wave* wave = nullptr;
  char text[256] = "";
  sida_message why{text, sizeof text};

  CStore() {
    options.struct_size = sizeof options;
    options.budget_bytes = 16384;  // two experts
  }
  ~CStore() override {
    sida_wave_release(wave);
    EXPECT_EQ(sida_store_close(store, &why), SIDA_OK) << text;
  }
  void open() { ASSERT_EQ(sida_store_open(&source, &options, &store, &why), SIDA_OK) << text; }
  sida_code open_fails() {
    store = reinterpret_cast<sida_store*>(this);
    sida_code const code = sida_store_open(&source, &options, &store, &why);
    EXPECT_EQ(store, nullptr);
    return code;
  }
  sida_code acquire(sida_expert_id id) { return sida_wave_acquire(store, &id, 1, nullptr, &wave, &why); }
  void release() { sida_wave_release(std::exchange(wave, nullptr)); }
  sida_stats stats() {
    sida_stats result{};
    result.struct_size = sizeof result;
    EXPECT_EQ(sida_store_stats(store, &result, &why), SIDA_OK) << text;
    return result;
  }
};

TEST_F(CStore, LendsTheBytesOfTheSourceInAscendingOrder) {
  open();
  EXPECT_EQ(sida_store_slots(store), 2U);
  EXPECT_EQ(sida_store_slot_bytes(store), 8192U);
  std::array<sida_expert_id, 2> const wanted{{{1, 2}, {0, 1}}};
  ASSERT_EQ(sida_wave_acquire(store, wanted.data(), 2, nullptr, &wave, &why), SIDA_OK) << text;
  ASSERT_EQ(sida_wave_size(wave), 2U);
  EXPECT_EQ(sida_wave_expert(wave, 0).expert, 1U);
  EXPECT_EQ(static_cast<unsigned char const*>(sida_wave_data(wave, 0))[4999], 1);
  EXPECT_EQ(static_cast<unsigned char const*>(sida_wave_data(wave, 1))[4999], 12);
  EXPECT_EQ(sida_wave_data(wave, 2), nullptr);
  EXPECT_EQ(sida_wave_expert(wave, 2).layer, UINT32_MAX);
  EXPECT_EQ(stats().misses, 2U);
}

TEST_F(CStore, ServesAnEventLargerThanTheSlotsInWaves) {
  open();
  std::array<sida_expert_id, 3> const wanted{{{0, 0}, {0, 1}, {0, 2}}};
  EXPECT_EQ(sida_wave_acquire(store, wanted.data(), 3, nullptr, &wave, &why), SIDA_OVER_BUDGET);
  EXPECT_THAT(text, HasSubstr("3 experts do not fit 2 slots"));
  sida_event* event = nullptr;
  ASSERT_EQ(sida_event_begin(store, wanted.data(), 3, nullptr, &event, &why), SIDA_OK) << text;
  std::size_t served = 0;
  for (;;) {
    ASSERT_EQ(sida_event_next_wave(event, &wave, &why), SIDA_OK) << text;
    if (wave == nullptr) break;
    served += sida_wave_size(wave);
    release();
  }
  EXPECT_EQ(served, 3U);
  EXPECT_EQ(sida_store_close(store, &why), SIDA_INVALID_ARGUMENT);  // the event still uses it
  EXPECT_THAT(text, HasSubstr("in use by 1"));
  sida_event_end(event);
}

TEST_F(CStore, LoadsAheadWhatAPlanNames) {
  open();
  sida_expert_id const expert{1, 0};
  sida_expert_set const events[] = {{nullptr, 0}, {&expert, 1}};
  sida_plan plan = SIDA_NO_PLAN;
  ASSERT_EQ(sida_plan_submit(store, events, 2, &plan, &why), SIDA_OK) << text;
  EXPECT_NE(plan, SIDA_NO_PLAN);
  sida_plan_position const position{plan, 1};
  ASSERT_EQ(sida_wave_acquire(store, &expert, 1, &position, &wave, &why), SIDA_OK) << text;
  auto const s = stats();
  EXPECT_EQ(s.prefetches_used, 1U);
  EXPECT_EQ(s.misses, 0U);
  EXPECT_EQ(s.planned_events, 1U);
  EXPECT_EQ(sida_plan_drop(store, plan), SIDA_OK);
}

TEST_F(CStore, RefusesASecondWaveOfOneThread) {
  open();
  ASSERT_EQ(acquire({0, 0}), SIDA_OK) << text;
  sida_wave* second = nullptr;
  sida_expert_id const other{0, 1};
  EXPECT_EQ(sida_wave_acquire(store, &other, 1, nullptr, &second, &why), SIDA_WOULD_DEADLOCK);
  EXPECT_EQ(second, nullptr);
  EXPECT_EQ(sida_store_reset(store, &why), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(sida_store_close(store, &why), SIDA_INVALID_ARGUMENT);
  release();
  EXPECT_EQ(acquire({0, 1}), SIDA_OK) << text;
}

TEST_F(CStore, RefusesUnknownAndRepeatedExperts) {
  open();
  EXPECT_EQ(acquire({2, 0}), SIDA_INVALID_ARGUMENT);
  EXPECT_THAT(text, HasSubstr("layer 2 expert 0"));
  sida_expert_id const twice[] = {{0, 1}, {0, 1}};
  EXPECT_EQ(sida_wave_acquire(store, twice, 2, nullptr, &wave, &why), SIDA_INVALID_ARGUMENT);
  sida_expert_set const planned = {twice, 2};
  EXPECT_EQ(sida_plan_submit(store, &planned, 1, nullptr, &why), SIDA_OK);
  sida_expert_id const unknown{0, 3};
  sida_expert_set const bad = {&unknown, 1};
  EXPECT_EQ(sida_plan_submit(store, &bad, 1, nullptr, &why), SIDA_INVALID_ARGUMENT);
}

TEST_F(CStore, TellsWhatTheCallbackSaidAndRecovers) {
  open();
  engine.code = SIDA_CORRUPT;
  engine.fail = 1;
  EXPECT_EQ(acquire({1, 1}), SIDA_CORRUPT);
  EXPECT_EQ(wave, nullptr);
  EXPECT_THAT(text, HasSubstr("layer 1 expert 1"));
  EXPECT_THAT(text, HasSubstr("bad sector"));
  EXPECT_EQ(acquire({1, 1}), SIDA_OK) << text;
  EXPECT_STREQ(text, "");
  release();
  engine.code = 12345;  // no code of ours
  engine.fail = 1;
  EXPECT_EQ(acquire({1, 2}), SIDA_IO);
}

TEST_F(CStore, AnswersACallbackThatThrows) {
  open();
  engine.throws = true;
  EXPECT_EQ(acquire({0, 0}), SIDA_IO);
  EXPECT_THAT(text, HasSubstr("disk on fire"));
  engine.throws = false;
  EXPECT_EQ(acquire({0, 0}), SIDA_OK) << text;
}

TEST_F(CStore, CancelWakesWhoWaits) {
  open();
  std::array<sida_expert_id, 2> const all_slots{{{0, 0}, {0, 1}}};
  ASSERT_EQ(sida_wave_acquire(store, all_slots.data(), 2, nullptr, &wave, &why), SIDA_OK) << text;
  sida_code waiter = SIDA_OK;
  std::thread thread([&] {
    sida_wave* none = nullptr;
    sida_expert_id const other{0, 2};
    waiter = sida_wave_acquire(store, &other, 1, nullptr, &none, nullptr);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // most likely blocked by now; either way it is told
  sida_store_cancel(store);
  thread.join();
  EXPECT_EQ(waiter, SIDA_CANCELLED);
  EXPECT_EQ(static_cast<unsigned char const*>(sida_wave_data(wave, 1))[0], 1);  // still valid
}

TEST_F(CStore, RepeatsAFailedWaveOfAnEvent) {
  open();
  std::array<sida_expert_id, 3> const wanted{{{1, 0}, {1, 1}, {1, 2}}};
  sida_event* event = nullptr;
  ASSERT_EQ(sida_event_begin(store, wanted.data(), 3, nullptr, &event, &why), SIDA_OK) << text;
  engine.fail = 1;
  EXPECT_EQ(sida_event_next_wave(event, &wave, &why), SIDA_IO);
  EXPECT_EQ(wave, nullptr);
  EXPECT_THAT(text, HasSubstr("bad sector"));
  ASSERT_EQ(sida_event_next_wave(event, &wave, &why), SIDA_OK) << text;
  ASSERT_EQ(sida_wave_size(wave), 2U);
  EXPECT_EQ(sida_wave_expert(wave, 0).expert, 0U);
  sida_wave* second = nullptr;
  EXPECT_EQ(sida_event_next_wave(event, &second, &why), SIDA_WOULD_DEADLOCK);
  release();
  sida_store_cancel(store);
  EXPECT_EQ(sida_event_next_wave(event, &wave, &why), SIDA_CANCELLED);
  sida_event_end(event);
}

TEST_F(CStore, BeginsNoEventOfUnknownOrRepeatedExperts) {
  open();
  sida_event* event = reinterpret_cast<sida_event*>(this);
  sida_expert_id const unknown{2, 0};
  EXPECT_EQ(sida_event_begin(store, &unknown, 1, nullptr, &event, &why), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(event, nullptr);
  sida_expert_id const twice[] = {{0, 1}, {0, 1}};
  EXPECT_EQ(sida_event_begin(store, twice, 2, nullptr, &event, &why), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(event, nullptr);
}

TEST_F(CStore, ResetEmptiesIt) {
  open();
  ASSERT_EQ(acquire({0, 0}), SIDA_OK) << text;
  release();
  EXPECT_EQ(sida_store_reset(store, &why), SIDA_OK) << text;
  EXPECT_EQ(stats().loads, 0U);
  ASSERT_EQ(acquire({0, 0}), SIDA_OK) << text;
  EXPECT_EQ(stats().misses, 1U);
}

TEST_F(CStore, TakesItsSlotsFromTheCallersAllocator) {
  options.allocate = Engine::allocate;
  options.deallocate = Engine::deallocate;
  options.memory_context = &engine;
  engine.no_memory = true;
  EXPECT_EQ(open_fails(), SIDA_OUT_OF_MEMORY);
  engine.no_memory = false;
  open();
  EXPECT_EQ(engine.allocated, 2 * 8192U);
  ASSERT_EQ(acquire({1, 1}), SIDA_OK) << text;
  release();
  ASSERT_EQ(sida_store_close(std::exchange(store, nullptr), &why), SIDA_OK);
  EXPECT_EQ(engine.given_back, engine.allocated);
}

TEST_F(CStore, RefusesOptionsAndSourcesThatMakeNoSense) {
  options.budget_bytes = 8191;
  EXPECT_EQ(open_fails(), SIDA_OVER_BUDGET);
  EXPECT_THAT(text, HasSubstr("8192"));
  options.budget_bytes = 8192;
  options.policy = 6;
  EXPECT_EQ(open_fails(), SIDA_INVALID_ARGUMENT);
  options.policy = SIDA_POLICY_DEFAULT;
  options.allocate = Engine::allocate;
  EXPECT_EQ(open_fails(), SIDA_INVALID_ARGUMENT);
  options.allocate = nullptr;
  options.struct_size = 8;
  EXPECT_EQ(open_fails(), SIDA_INVALID_ARGUMENT);
  EXPECT_THAT(text, HasSubstr("struct_size"));
  options.struct_size = sizeof options;
  source.read = nullptr;
  EXPECT_EQ(open_fails(), SIDA_INVALID_ARGUMENT);
  source.read = Engine::read;
  source.experts_per_layer = nullptr;
  EXPECT_EQ(open_fails(), SIDA_INVALID_ARGUMENT);
  source.experts_per_layer = experts.data();
  source.layers = 0;
  EXPECT_EQ(open_fails(), SIDA_INVALID_ARGUMENT);
  source.layers = 2;
  record_bytes[1] = 0;
  EXPECT_EQ(open_fails(), SIDA_INVALID_ARGUMENT);
  record_bytes[1] = UINT64_MAX;
  EXPECT_EQ(open_fails(), SIDA_INVALID_ARGUMENT);
}

TEST_F(CStore, ReadsANewerCallersStructWhoseNewMembersAreZero) {
  struct Newer {
    sida_store_options known;
    std::uint64_t later;
  } newer{options, 1};
  newer.known.struct_size = sizeof newer;
  EXPECT_EQ(sida_store_open(&source, &newer.known, &store, &why), SIDA_UNSUPPORTED);
  newer.later = 0;
  EXPECT_EQ(sida_store_open(&source, &newer.known, &store, &why), SIDA_OK) << text;
}

TEST_F(CStore, FillsOnlyAsMuchOfTheStatisticsAsTheCallerHas) {
  open();
  ASSERT_EQ(acquire({0, 0}), SIDA_OK) << text;
  sida_stats older;
  std::memset(&older, 0x7F, sizeof older);
  older.struct_size = offsetof(sida_stats, loads);
  ASSERT_EQ(sida_store_stats(store, &older, &why), SIDA_OK) << text;
  EXPECT_EQ(older.misses, 1U);
  EXPECT_EQ(older.loads, 0x7F7F7F7F7F7F7F7FU);
  older.struct_size = 8;
  EXPECT_EQ(sida_store_stats(store, &older, &why), SIDA_INVALID_ARGUMENT);
}

TEST_F(CStore, AnswersNull) {
  EXPECT_EQ(sida_store_open(nullptr, &options, &store, &why), SIDA_INVALID_ARGUMENT);
  EXPECT_STREQ(text, "source is NULL");
  EXPECT_EQ(sida_store_open(&source, nullptr, &store, nullptr), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(sida_store_open(&source, &options, nullptr, nullptr), SIDA_INVALID_ARGUMENT);
  open();
  EXPECT_EQ(sida_wave_acquire(store, nullptr, 1, nullptr, &wave, nullptr), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(sida_wave_acquire(store, nullptr, 0, nullptr, nullptr, nullptr), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(sida_wave_acquire(nullptr, nullptr, 0, nullptr, &wave, nullptr), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(sida_plan_submit(store, nullptr, 1, nullptr, nullptr), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(sida_plan_submit(nullptr, nullptr, 0, nullptr, nullptr), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(sida_plan_drop(nullptr, 1), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(sida_event_begin(store, nullptr, 0, nullptr, nullptr, nullptr), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(sida_event_next_wave(nullptr, &wave, nullptr), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(sida_store_stats(store, nullptr, nullptr), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(sida_store_reset(nullptr, nullptr), SIDA_INVALID_ARGUMENT);
  EXPECT_EQ(sida_store_slots(nullptr), 0U);
  EXPECT_EQ(sida_store_slot_bytes(nullptr), 0U);
  EXPECT_EQ(sida_wave_size(nullptr), 0U);
  EXPECT_EQ(sida_wave_data(nullptr, 0), nullptr);
  sida_wave_release(nullptr);
  sida_event_end(nullptr);
  sida_store_cancel(nullptr);
}

TEST_F(CStore, CutsAMessageThatDoesNotFit) {
  char small[8];
  sida_message buffer{small, sizeof small};
  EXPECT_EQ(sida_store_open(nullptr, &options, &store, &buffer), SIDA_INVALID_ARGUMENT);
  EXPECT_STREQ(small, "source ");
}

TEST(CInterface, NamesItsCodes) {
  EXPECT_STREQ(sida_code_name(SIDA_OVER_BUDGET), "over_budget");
  EXPECT_STREQ(sida_code_name(SIDA_INTERNAL), "internal");
  EXPECT_STREQ(sida_code_name(-1), "unknown");
  EXPECT_EQ(sida_abi_version(), static_cast<std::uint32_t>(SIDA_ABI_VERSION));
}

}  // namespace
