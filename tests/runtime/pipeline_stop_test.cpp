// A pipeline that is stopped at each of its states, from within and from beside it, many times over: it ends, with
// `cancelled`, and leaves nothing in the store.
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <semaphore>
#include <stop_token>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "sida/runtime/pipeline.hpp"
#include "tests/runtime/toy_model.hpp"

namespace sida::test {
namespace {

constexpr int kRounds = SIDA_STOP_ROUNDS;
constexpr std::uint64_t kNeverDone = 1'000'000;  // batches
constexpr std::uint64_t kBatch = 2;              // in which the stop comes

/// Where a run is when it is stopped.
enum class At {
  source,     // the hash-building thread makes a batch
  predictor,  // ... predicts
  room,       // ... waits for room in the queue
  plans,      // the inference thread waits until `lookahead` plans are there
  plan,       // ... waits for the next plan
  begin,      // ... begins a batch
  run_to,     // ... steps to a MoE layer
  route,      // ... runs a router
  run_moe,    // ... runs a MoE layer
  expert,     // ... waits for an expert
  finish,     // ... finishes a batch
  observer,   // ... has handed an answer over
};

constexpr std::pair<At, char const*> kStates[] = {
    {At::source, "source"},   {At::predictor, "predictor"}, {At::room, "room"},     {At::plans, "plans"},
    {At::plan, "plan"},       {At::begin, "begin"},         {At::run_to, "run_to"}, {At::route, "route"},
    {At::run_moe, "run_moe"}, {At::expert, "expert"},       {At::finish, "finish"}, {At::observer, "observer"}};

/// One run, and who stops it.
class StoppedRun {
 public:
  StoppedRun(At at, bool from_beside) : at_(at), from_beside_(from_beside), store_(4, [this] { on_read(); }) {}

  Status run() {
    ToyModel model(*store_.store);
    model.on_step = [&](int step) { return on_step(step); };
    ToyPredictor predictor;
    predictor.on_predict = [&](std::uint64_t batch) { return on_predict(batch); };
    ToyBatches source{.count = kNeverDone, .on_next = [&](std::uint64_t batch) { return on_next(batch); }, .made = 0};
    ToyObserver observer;
    observer.on_finished = [&](std::uint64_t batch) {
      if (at_ == At::observer && batch == kBatch) stop();
      return Status();
    };
    InlinePool pool;
    PipelineOptions options;
    options.lookahead = at_ == At::room ? 1 : 3;
    options.stop = stop_.get_token();
    options.start = at_ == At::plans ? PipelineStart::when_plans_are : PipelineStart::at_once;
    std::jthread const stopper([&] {
      asked_.acquire();
      stop_now();
    });
    Status status = run_pipeline(model, predictor, source, observer, *store_.store, pool, options);
    asked_.release();  // in case that it never came to the state
    return status;
  }

  bool came_to_the_state() const { return came_; }
  /// No wave and no plan is left.
  Status reset() { return store_.store->reset(); }

 private:
  void stop() {
    came_ = true;
    if (from_beside_) {
      asked_.release();
    } else {
      stop_now();
    }
  }
  void stop_now() {
    stop_.request_stop();
    store_.store->cancel();
  }
  /// Until the run is stopped.
  void wait_for_stop() {
    std::mutex mutex;
    std::condition_variable_any never;
    std::unique_lock lock(mutex);
    never.wait(lock, stop_.get_token(), [] { return false; });
  }

  Status on_next(std::uint64_t batch) {
    if (at_ == At::source && batch == kBatch) stop();
    // The inference thread then waits for this batch, or soon will.
    if ((at_ == At::plan || at_ == At::plans) && batch == kBatch) {
      stop();
      wait_for_stop();
      return {Errc::cancelled, "the source noticed"};
    }
    return {};
  }
  Status on_predict(std::uint64_t batch) {
    if (at_ == At::predictor && batch == kBatch) stop();
    if (at_ == At::room && batch == kBatch) is_full_.release();
    return {};
  }
  Status on_step(int step) {
    // Batch 0 runs, 1 is in the queue, and 2 waits for room, or soon will.
    if (at_ == At::room && step == 0) {
      is_full_.acquire();
      stop();
    }
    int const in_batch = step - static_cast<int>(kBatch) * kStepsPerBatch;
    if ((at_ == At::begin && in_batch == 0) || (at_ == At::run_to && in_batch == 1) ||
        (at_ == At::route && in_batch == 2) || (at_ == At::run_moe && in_batch == 3) ||
        (at_ == At::finish && in_batch == kStepsPerBatch - 1)) {
      stop();
    }
    return {};
  }
  void on_read() {
    // From the first read on: the inference thread waits for it, or soon will.
    if (at_ != At::expert || came_.exchange(true)) return;
    if (from_beside_) {
      asked_.release();
      wait_for_stop();
    } else {
      stop_now();
    }
  }

  At at_;
  bool from_beside_;
  std::stop_source stop_;
  std::counting_semaphore<> asked_{0};
  std::counting_semaphore<> is_full_{0};
  std::atomic<bool> came_{false};
  ToyStore store_;  // last: its threads use all the rest
};

class PipelineStop : public ::testing::TestWithParam<std::pair<At, char const*>> {};

TEST_P(PipelineStop, EndsAndLeavesNothing) {
  for (int round = 0; round < kRounds; ++round) {
    StoppedRun run(GetParam().first, round % 2 == 0);
    Status const status = run.run();
    ASSERT_EQ(status.code(), Errc::cancelled) << status.message() << " in round " << round;
    ASSERT_TRUE(run.came_to_the_state());
    Status const reset = run.reset();
    ASSERT_TRUE(reset) << reset.message();
  }
}

INSTANTIATE_TEST_SUITE_P(States, PipelineStop, ::testing::ValuesIn(kStates),
                         [](auto const& suite) { return std::string(suite.param.second); });

}  // namespace
}  // namespace sida::test
