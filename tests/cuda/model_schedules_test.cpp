#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cuda_on_host/control.hpp"
#include <gtest/gtest.h>

#include "tests/cuda/device_encoder.hpp"
#include "tests/cuda/device_fixture.hpp"
#include "tests/model/encoder_fixture.hpp"
#include "tests/model/random_checkpoint.hpp"

/// For the stand-in for CUDA only: what it may do in another order, it does.
namespace sida {
namespace {

using testing::DeviceEncoder;
using testing::DeviceSetup;
using testing::must;
using Events = std::vector<std::vector<ExpertId>>;

constexpr std::uint32_t kExperts = 6, kMoeLayers = 2;
constexpr std::uint64_t kAllExperts = std::uint64_t{kExperts} * kMoeLayers;
constexpr PolicyKind kPolicies[] = {PolicyKind::fifo, PolicyKind::lru, PolicyKind::lfu, PolicyKind::lfru,
                                    PolicyKind::next_use};

enum class Plan { none, right, wrong, right_in_part };

/// How things go: everything that no byte of an answer may depend on.
struct Schedule {
  DeviceSetup setup;
  cuda_on_host::Modes modes;
  Plan plan;

  explicit Schedule(std::mt19937_64& random)
      : setup{.slots = 1 + random() % kAllExperts,
              .host_slots = 1 + random() % kAllExperts,
              .policy = kPolicies[random() % std::size(kPolicies)],
              .prefetch_depth = static_cast<std::uint32_t>(random() % 9),
              .host_is_pinned = random() % 4 != 0},
        modes{.poison_destinations = random() % 2 == 0, .hold_copies = random() % 3 == 0},
        plan(static_cast<Plan>(random() % 4)) {
    if (random() % 2 == 0) modes.shuffle = random();
  }
  std::string describe() const {
    return std::to_string(setup.slots) + " slots over " + std::to_string(setup.host_slots) +
           (setup.host_is_pinned ? " pinned, " : " pageable, ") + std::string(to_string(setup.policy)) + ", " +
           std::to_string(setup.prefetch_depth) + " ahead, plan " + std::to_string(static_cast<int>(plan)) +
           (modes.poison_destinations ? ", poison" : "") + (modes.hold_copies ? ", hold" : "") +
           (modes.shuffle ? ", shuffle" : "");
  }
};

class CudaSchedules : public ::testing::Test {
 protected:
  CudaSchedules() {
    testing::write_checkpoint(folder_, config_, testing::random_tensors(config_, Dtype::bf16, Dtype::bf16));
    for (auto const& lengths : std::vector<std::vector<std::size_t>>{{3, 2}, {7}, {1, 1, 2}}) {
      batches_.push_back(
          testing::random_batch(lengths, config_.vocab_size, static_cast<std::uint32_t>(batches_.size())));
    }
    DeviceEncoder gpu(folder_.path());
    SwitchEncoder::State state;
    for (TokenBatch const& batch : batches_) {
      expected_.push_back(answer(gpu, batch, state, {}));
      must(gpu.encoder->begin(batch, state));
      for (std::uint32_t layer = 0; layer < kMoeLayers; ++layer) {
        must(gpu.encoder->run_to(layer, state, pool_));
        must(gpu.encoder->route(layer, state, pool_));
        events_.push_back(experts_of(layer, gpu.encoder->routing(state)));
        must(gpu.encoder->run_moe(layer, state, pool_, {}));
      }
    }
  }
  ~CudaSchedules() override { cuda_on_host::reset(); }

  std::string answer(DeviceEncoder& gpu, TokenBatch const& batch, SwitchEncoder::State& state, PlanPosition position) {
    testing::run_batch(*gpu.encoder, batch, state, pool_, position);
    return testing::output_bytes(state);
  }

  static std::vector<ExpertId> experts_of(std::uint32_t layer, Routing<> const& routing) {
    std::vector<ExpertId> ids;
    for (std::uint32_t e = 0; e < kExperts; ++e) {
      for (std::int64_t t = 0; t < routing.tokens(); ++t) {
        if (routing.experts(t, 0) != e) continue;
        ids.push_back({layer, e});
        break;
      }
    }
    return ids;
  }

  /// The events of all batches, as the plan has them.
  Events planned(Plan plan, std::mt19937_64& random) const {
    Events events = events_;
    for (std::size_t i = 0; i < events.size(); ++i) {
      if (plan == Plan::right || (plan == Plan::right_in_part && random() % 2 == 0)) continue;
      auto const layer = static_cast<std::uint32_t>(i % kMoeLayers);
      events[i].clear();
      for (std::uint32_t e = 0; e < kExperts; ++e) {
        if (random() % 3 == 0) events[i].push_back({layer, e});
      }
    }
    return events;
  }

  SwitchConfig config_ = testing::tiny_config(2 * kMoeLayers, kExperts);
  testing::TempDir folder_;
  InlinePool pool_;
  std::vector<TokenBatch> batches_;
  std::vector<std::string> expected_;  // bytes of each batch's answer
  Events events_;                      // [batches * MoE layers]
};

TEST_F(CudaSchedules, NeverChangeAByte) {
  int const schedules = test::kIsSanitized ? 25 : 200;
  for (int i = 0; i < schedules; ++i) {
    std::mt19937_64 random(static_cast<std::uint64_t>(i));
    Schedule const schedule(random);
    SCOPED_TRACE("schedule " + std::to_string(i) + ": " + schedule.describe());
    DeviceEncoder gpu(folder_.path(), schedule.setup);
    cuda_on_host::set(schedule.modes);
    PlanId plan = PlanId::none;
    if (schedule.plan != Plan::none) plan = testing::value_of(gpu.store->submit_plan(planned(schedule.plan, random)));
    SwitchEncoder::State state;
    for (std::size_t b = 0; b < batches_.size(); ++b) {
      auto const event = static_cast<std::uint32_t>(b * kMoeLayers);
      EXPECT_TRUE(answer(gpu, batches_[b], state, {plan, event}) == expected_[b]) << "batch " << b;
    }
    EXPECT_EQ(cuda_on_host::failure(), "");
    cuda_on_host::reset();
  }
}

// What the program does at an interrupt: both stores are cancelled from another thread.
TEST_F(CudaSchedules, MayBeCancelledAtAnyMoment) {
  auto const before = cuda_on_host::live();
  int cancelled = 0;
  for (int i = 0; i < (test::kIsSanitized ? 12 : 60); ++i) {
    std::mt19937_64 random(static_cast<std::uint64_t>(i));
    Schedule const schedule(random);
    SCOPED_TRACE("schedule " + std::to_string(i) + ": " + schedule.describe());
    {
      DeviceEncoder gpu(folder_.path(), schedule.setup);
      cuda_on_host::set(schedule.modes);
      static_cast<void>(testing::value_of(gpu.store->submit_plan(planned(schedule.plan, random))));
      std::jthread const interrupt([&, wait = std::chrono::microseconds(random() % 20'000)] {
        std::this_thread::sleep_for(wait);
        gpu.store->cancel();
        gpu.host_store->cancel();
      });
      SwitchEncoder::State state;
      try {
        for (int repeat = 0; repeat < 1000; ++repeat) {
          auto const b = static_cast<std::size_t>(repeat) % batches_.size();
          EXPECT_TRUE(answer(gpu, batches_[b], state, {}) == expected_[b]);
        }
        ADD_FAILURE() << "was not cancelled";
      } catch (std::exception const& error) {
        cancelled += std::string(error.what()).find("cancelled") != std::string::npos ? 1 : 0;
        EXPECT_NE(std::string(error.what()).find("cancelled"), std::string::npos) << error.what();
      }
    }
    EXPECT_EQ(cuda_on_host::live(), before);
    cuda_on_host::reset();
  }
  EXPECT_GT(cancelled, 0);
}

}  // namespace
}  // namespace sida
