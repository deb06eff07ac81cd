#include "sida/runtime/pipeline.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <stop_token>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/runtime/toy_model.hpp"

namespace sida {
namespace {

using test::expected_sum;
using test::kLayers;
using test::kStepsPerBatch;
using test::ToyBatches;
using test::ToyModel;
using test::ToyObserver;
using test::ToyPredictor;
using test::ToyStore;

struct ToyRun {
  explicit ToyRun(std::uint64_t batches, std::uint32_t slots = 4) : store(slots), model(*store.store) {
    source.count = batches;
  }
  Status start() { return run_pipeline(model, predictor, source, observer, *store.store, pool, options); }

  ToyStore store;
  ToyModel model;
  ToyPredictor predictor;
  ToyBatches source;
  ToyObserver observer;
  InlinePool pool;
  PipelineOptions options{.lookahead = 2};
};

std::vector<std::uint64_t> numbers(std::uint64_t count) {
  std::vector<std::uint64_t> values(count);
  std::iota(values.begin(), values.end(), 0);
  return values;
}

TEST(Pipeline, AnswersBatchesInOrder) {
  for (std::size_t const lookahead : {0U, 1U, 2U, 40U}) {
    for (auto const begin : {PipelineStart::at_once, PipelineStart::when_plans_are}) {
      ToyRun run(20);
      run.options.lookahead = lookahead;
      run.options.start = begin;
      ASSERT_TRUE(run.start());
      EXPECT_EQ(run.observer.started_batches, numbers(20));
      EXPECT_EQ(run.observer.finished_batches, numbers(20));
      for (std::uint64_t i = 0; i < 20; ++i) EXPECT_EQ(run.observer.sums[i], expected_sum(i));
      EXPECT_EQ(run.observer.routed_layers.size(), 20 * kLayers);
      EXPECT_EQ(run.predictor.observed, 20 * kLayers);
      EXPECT_EQ(run.store.store->stats().planned_events, 20 * kLayers);
      EXPECT_TRUE(run.store.store->reset());
    }
  }
}

TEST(Pipeline, EndsAtOnceWithoutBatches) {
  ToyRun run(0);
  run.options.start = PipelineStart::when_plans_are;
  EXPECT_TRUE(run.start());
  EXPECT_TRUE(run.observer.started_batches.empty());
}

TEST(Pipeline, GivesTheSameAnswersUnderAWrongPlan) {
  ToyRun run(20, 1);
  run.predictor.offset = 3;
  ASSERT_TRUE(run.start());
  for (std::uint64_t i = 0; i < 20; ++i) EXPECT_EQ(run.observer.sums[i], expected_sum(i));
}

TEST(Pipeline, InPredictedModeThePlanDecides) {
  for (std::size_t const lookahead : {0U, 2U}) {
    ToyRun run(20);
    run.options.mode = RunMode::predicted;
    run.options.lookahead = lookahead;
    run.predictor.offset = 3;
    run.predictor.names_tokens = true;
    ASSERT_TRUE(run.start());
    for (std::uint64_t i = 0; i < 20; ++i) EXPECT_EQ(run.observer.sums[i], expected_sum(i + 3));
    EXPECT_EQ(run.model.routed, 0);
    EXPECT_EQ(run.predictor.observed, 0U) << "no router said anything";
    EXPECT_EQ(run.observer.routed_layers.size(), 20 * kLayers);
    auto const stats = run.store.store->stats();
    EXPECT_EQ(stats.planned_events, 20 * kLayers);
    EXPECT_EQ(stats.mispredicted_loads, 0U);
  }
}

TEST(Pipeline, PredictedModeNeedsAPlanOfEachToken) {
  ToyRun run(3);
  run.options.mode = RunMode::predicted;  // the predictor knows sets alone
  Status const status = run.start();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Errc::invalid_argument);
  EXPECT_NE(status.message().find("MoE layer 0"), std::string::npos);
  EXPECT_TRUE(run.observer.finished_batches.empty());
  EXPECT_TRUE(run.store.store->reset());
}

TEST(Pipeline, TellsTheStoreNothingWhenAskedTo) {
  ToyRun run(20, 1);
  run.options.submits_plans = false;
  ASSERT_TRUE(run.start());
  EXPECT_EQ(run.store.store->stats().planned_events, 0U);
  EXPECT_EQ(run.store.store->stats().prefetches, 0U);
  for (std::uint64_t i = 0; i < 20; ++i) EXPECT_EQ(run.observer.sums[i], expected_sum(i));
}

TEST(Pipeline, SaysWhereTheTimeWent) {
  using std::chrono::milliseconds;
  PipelineStats stats;
  ToyRun slow_plans(5);
  slow_plans.options.stats = &stats;
  slow_plans.predictor.on_predict = [](std::uint64_t) {
    std::this_thread::sleep_for(milliseconds(4));
    return Status();
  };
  ASSERT_TRUE(slow_plans.start());
  EXPECT_GE(stats.predict_ns, 5U * 4'000'000U);
  EXPECT_GE(stats.plan_wait_ns, 4'000'000U) << "at least for the first";
  ToyRun slow_steps(8);
  slow_steps.options.lookahead = 1;
  PipelineStats other;
  slow_steps.options.stats = &other;
  slow_steps.model.on_step = [](int) {
    std::this_thread::sleep_for(milliseconds(1));
    return Status();
  };
  ASSERT_TRUE(slow_steps.start());
  EXPECT_GE(other.room_wait_ns, 5U * 8'000'000U);
}

TEST(Pipeline, SubmitsNothingForAnEmptyPlan) {
  ToyRun run(5);
  NoPredictor nothing;
  ASSERT_TRUE(run_pipeline(run.model, nothing, run.source, run.observer, *run.store.store, run.pool, run.options));
  auto const stats = run.store.store->stats();
  EXPECT_EQ(stats.planned_events, 0U);
  EXPECT_EQ(stats.prefetches, 0U);
  EXPECT_EQ(stats.events, 5 * kLayers);
}

TEST(Pipeline, TellsTheStoreOfLookaheadBatchesAndNoMore) {
  for (std::uint64_t const lookahead : {1U, 3U}) {
    ToyRun run(8, 16);
    run.options.lookahead = lookahead;
    std::uint64_t const known = (1 + lookahead) * kLayers;  // each batch has experts of its own
    run.model.on_step = [&](int step) {
      if (step != 0) return Status();
      auto const deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (run.store.store->stats().prefetches < known && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::yield();
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      EXPECT_EQ(run.store.store->stats().prefetches, known);
      return Status();
    };
    ASSERT_TRUE(run.start());
  }
}

TEST(Pipeline, WaitsForPlansWhenAskedTo) {
  ToyRun run(8);
  run.options.lookahead = 3;
  run.options.start = PipelineStart::when_plans_are;
  std::atomic<std::uint64_t> predicted{0};
  run.predictor.on_predict = [&](std::uint64_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    ++predicted;
    return Status();
  };
  run.model.on_step = [&](int step) {
    if (step == 0) {
      EXPECT_GE(predicted.load(), 3U);
    }
    return Status();
  };
  EXPECT_TRUE(run.start());
}

TEST(Pipeline, LendsEmbeddingsToThePredictor) {
  struct Reader {
    float seen = 0;
    Result<ActivationPlan> predict(PredictorInput const& input) {
      seen += input.embeddings(0, 0);
      return ActivationPlan{};
    }
    void observe(std::uint64_t, std::uint32_t, Matrix<std::uint16_t const>) {}
  };
  ToyRun run(4);
  Reader reader;
  std::vector<float> row(1);
  run.options.embed = [&](TokenBatch const& batch) -> Result<Matrix<float const>> {
    row[0] = static_cast<float>(batch.ids.front());
    return Matrix<float const>(row.data(), 1, 1);
  };
  ASSERT_TRUE(run_pipeline(run.model, reader, run.source, run.observer, *run.store.store, run.pool, run.options));
  EXPECT_EQ(reader.seen, 0 + 1 + 2 + 3);
}

TEST(Pipeline, ForwardsAFailureOfTheSourceAfterEarlierBatches) {
  for (std::uint64_t failing = 0; failing <= 6; ++failing) {
    ToyRun run(6);
    run.source.on_next = [&](std::uint64_t batch) {
      return batch == failing ? Status(Errc::corrupt, "line 7") : Status();
    };
    Status const status = run.start();
    EXPECT_EQ(status.code(), Errc::corrupt);
    EXPECT_EQ(status.message(), "line 7");
    EXPECT_EQ(run.observer.finished_batches, numbers(failing));
    EXPECT_TRUE(run.store.store->reset());
  }
}

TEST(Pipeline, ForwardsAFailureOfThePredictor) {
  for (std::uint64_t failing = 0; failing < 6; ++failing) {
    ToyRun run(6);
    run.predictor.on_predict = [&](std::uint64_t batch) {
      return batch == failing ? Status(Errc::unsupported, "no idea") : Status();
    };
    EXPECT_EQ(run.start().code(), Errc::unsupported);
    EXPECT_EQ(run.observer.finished_batches, numbers(failing));
    EXPECT_TRUE(run.store.store->reset());
  }
}

TEST(Pipeline, RefusesAPlanOfUnknownExperts) {
  struct Stray {
    Result<ActivationPlan> predict(PredictorInput const&) {
      ActivationPlan plan;
      plan.layers.resize(1);
      plan.layers[0].expert_set = {{77, 0}};
      return plan;
    }
    void observe(std::uint64_t, std::uint32_t, Matrix<std::uint16_t const>) {}
  };
  for (std::size_t const lookahead : {0U, 2U}) {
    ToyRun run(3);
    run.options.lookahead = lookahead;
    Stray stray;
    auto const status =
        run_pipeline(run.model, stray, run.source, run.observer, *run.store.store, run.pool, run.options);
    EXPECT_EQ(status.code(), Errc::invalid_argument);
    EXPECT_TRUE(run.observer.started_batches.empty());
  }
}

TEST(Pipeline, TurnsAnExceptionOfTheSourceIntoAFailure) {
  ToyRun run(6);
  run.source.on_next = [](std::uint64_t batch) -> Status {
    if (batch == 3) throw std::runtime_error("engine trouble");
    return {};
  };
  Status const status = run.start();
  ASSERT_FALSE(status);
  EXPECT_NE(status.message().find("engine trouble"), std::string::npos);
  EXPECT_EQ(run.observer.finished_batches, numbers(3));
}

TEST(Pipeline, StopsTheProducerWhenAnyStepOfTheModelFails) {
  for (int failing = 0; failing < 3 * kStepsPerBatch; ++failing) {
    ToyRun run(200);  // far more than the queue holds, so that the producer is blocked
    run.options.lookahead = 1 + static_cast<std::size_t>(failing) % 3;
    run.model.on_step = [&](int step) { return step == failing ? Status(Errc::device, "on strike") : Status(); };
    EXPECT_EQ(run.start().code(), Errc::device);
    EXPECT_EQ(run.model.steps, failing + 1);
    EXPECT_EQ(run.observer.finished_batches, numbers(static_cast<std::uint64_t>(failing / kStepsPerBatch)));
    EXPECT_LT(run.source.made, 200U);
    EXPECT_TRUE(run.store.store->reset());
  }
}

TEST(Pipeline, ForwardsAFailureOfTheObserver) {
  ToyRun run(200);
  run.observer.on_finished = [](std::uint64_t batch) { return batch == 4 ? Status(Errc::io, "disk full") : Status(); };
  EXPECT_EQ(run.start().code(), Errc::io);
  EXPECT_EQ(run.observer.finished_batches, numbers(5));
}

TEST(Pipeline, LetsAnExceptionOfTheModelOrTheObserverThrough) {
  for (bool const from_model : {true, false}) {
    ToyRun run(200);  // so that the producer waits for room
    run.options.lookahead = 1;
    if (from_model) {
      run.model.on_step = [](int step) -> Status {
        if (step == 3) throw std::runtime_error("thrown");
        return {};
      };
    } else {
      run.observer.on_finished = [](std::uint64_t) -> Status { throw std::runtime_error("thrown"); };
    }
    EXPECT_THROW((void)run.start(), std::runtime_error);
    EXPECT_TRUE(run.store.store->reset()) << "no plan and no wave is left";
  }
}

TEST(Pipeline, StopsAfterTheStepThatRunsWhenAskedTo) {
  for (int last = 0; last < 2 * kStepsPerBatch; ++last) {
    ToyRun run(200);
    std::stop_source stop;
    run.options.stop = stop.get_token();
    run.model.on_step = [&](int step) {
      if (step == last) stop.request_stop();
      return Status();
    };
    EXPECT_EQ(run.start().code(), Errc::cancelled);
    // run_to and route are one step of the loop: up to one more step of the model follows.
    EXPECT_LE(run.model.steps, last + 2);
    EXPECT_LE(run.observer.finished_batches.size(), static_cast<std::size_t>(last / kStepsPerBatch) + 1);
    EXPECT_TRUE(run.store.store->reset());
  }
}

TEST(Pipeline, DoesNothingWhenStoppedBefore) {
  ToyRun run(5);
  std::stop_source stop;
  stop.request_stop();
  run.options.stop = stop.get_token();
  EXPECT_EQ(run.start().code(), Errc::cancelled);
  EXPECT_EQ(run.model.steps, 0);
}

TEST(Pipeline, WakesTheConsumerThatWaitsForASlowSource) {
  ToyRun run(5);
  std::stop_source stop;
  run.options.stop = stop.get_token();
  run.options.start = PipelineStart::when_plans_are;
  run.source.on_next = [&](std::uint64_t batch) -> Status {
    if (batch < 1) return {};
    std::mutex mutex;
    std::condition_variable_any never;
    std::unique_lock lock(mutex);
    never.wait(lock, stop.get_token(), [] { return false; });
    return {Errc::cancelled, "the source noticed"};
  };
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    stop.request_stop();
  });
  EXPECT_EQ(run.start().code(), Errc::cancelled);
  stopper.join();
}

TEST(Pipeline, EndsWhenItsStoreIsCancelled) {
  ToyRun run(200);
  run.model.on_step = [&](int step) {
    if (step == 5) run.store.store->cancel();
    return Status();
  };
  EXPECT_EQ(run.start().code(), Errc::cancelled);
}

TEST(Pipeline, RunsAWindowLayerByLayerOverTheSameSteps) {
  ToyRun run(4);
  StepContext<ToyModel, ToyPredictor, ToyObserver> const context{run.model, run.predictor, run.observer, run.pool};
  std::vector<PlannedBatch> window(4);
  std::vector<ToyModel::State> states(4);
  for (std::size_t i = 0; i < 4; ++i) {
    window[i].batch = **run.source.next();
    ASSERT_TRUE(begin_batch(context, window[i].batch, states[i]));
  }
  for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
    for (std::size_t i = 0; i < 4; ++i) ASSERT_TRUE(run_layer(context, window[i], layer, states[i]));
  }
  for (std::size_t i = 0; i < 4; ++i) ASSERT_TRUE(finish_batch(context, window[i].batch, states[i]));
  for (std::uint64_t i = 0; i < 4; ++i) EXPECT_EQ(run.observer.sums[i], expected_sum(i));
}

}  // namespace
}  // namespace sida
