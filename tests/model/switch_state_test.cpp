#include <algorithm>
#include <memory>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "model/stopping_pool.hpp"
#include "sida/model/switch_encoder.hpp"
#include "tests/model/switch_encoder_fixture.hpp"
#include "tests/support/fault_source.hpp"

namespace sida::testing {
namespace {

/// Which step a state takes next, and what becomes of it after a stop, a failure or its encoder's end.
class SwitchState : public SwitchEncoderTest {};

/// Requests a stop when its `last`-th task has run.
class StoppedPool final : public ThreadPool {
 public:
  StoppedPool(std::stop_source& source, int last) : source_(source), left_(last) {}
  std::size_t concurrency() const noexcept override { return 1; }
  void run(std::size_t tasks, TaskRef task) override {
    for (std::size_t i = 0; i < tasks; ++i) {
      task(i);
      if (--left_ == 0) source_.request_stop();
    }
  }

 private:
  std::stop_source& source_;
  int left_;
};

TEST_F(SwitchState, StopsWithinAnyStepAndHasNoBatchThen) {
  LoadedEncoder all(folder_.path());
  std::string const expected = outputs(*all.encoder, batch(1), pool_);
  int last = 1;
  for (bool finished = false; !finished; last += 1 + last / 16) {
    std::stop_source source;
    LoadedEncoder loaded(folder_.path(), 0, {.stop = source.get_token()});
    SwitchEncoder& encoder = *loaded.encoder;
    StoppedPool pool(source, last);
    SwitchEncoder::State state;
    must(encoder.begin(batch(1), state));
    Status status;
    for (std::uint32_t layer = 0; status && layer < encoder.moe_layers(); ++layer) {
      status = encoder.run_to(layer, state, pool);
      if (status) status = encoder.route(layer, state, pool);
      if (status) status = encoder.run_moe(layer, state, pool, {});
    }
    if (status) status = encoder.finish(state, pool);
    finished = static_cast<bool>(status);
    if (finished) {
      EXPECT_EQ(output_bytes(state), expected);
    } else {
      ASSERT_EQ(status.code(), Errc::cancelled) << last;
      EXPECT_EQ(encoder.finish(state, pool_).code(), Errc::invalid_argument);
      EXPECT_EQ(state.logits().rows, 0);
    }
  }
  EXPECT_GT(last, 50);  // each of the steps was stopped
}

TEST_F(SwitchState, LeavesOutTheWorkOfAStepAfterAStop) {
  std::stop_source source;
  InlinePool pool;
  model_detail::StoppingPool stopping(pool, source.get_token());
  int ran = 0;
  auto const task = [&](std::size_t i) {
    ++ran;
    if (i == 3) source.request_stop();
  };
  stopping.run(10, task);
  EXPECT_EQ(ran, 4);
  stopping.run(10, task);
  EXPECT_EQ(ran, 4);
}

TEST_F(SwitchState, TellsABatchOfAnEncoderThatIsGone) {
  LoadedEncoder const loaded(folder_.path());
  HostMemory memory;
  auto const load = [&] { return value_of(SwitchEncoder::load(loaded.checkpoint, *loaded.store, {}, memory)); };
  SwitchEncoder::State state;
  auto encoder = load();
  must(encoder->begin(batch(1), state));
  for (int i = 0; i < 20; ++i) {  // of which some are where the first was
    encoder.reset();
    encoder = load();
    EXPECT_EQ(encoder->run_to(0, state, pool_).code(), Errc::invalid_argument);
  }
}

TEST_F(SwitchState, UsesAStateAgain) {
  LoadedEncoder loaded(folder_.path());
  SwitchEncoder::State state;
  for (std::uint32_t seed = 0; seed < 6; ++seed) {
    TokenBatch const next = seed % 2 == 0 ? batch(seed) : batch(seed, {3, 2});
    run_batch(*loaded.encoder, next, state, pool_);
    EXPECT_EQ(state.tokens(), next.tokens());
    EXPECT_EQ(state.sequences(), next.sequences());
    EXPECT_EQ(output_bytes(state), outputs(*loaded.encoder, next, pool_)) << seed;
  }
}

TEST_F(SwitchState, MovesAStateInTheMiddleOfABatch) {
  LoadedEncoder loaded(folder_.path());
  SwitchEncoder::State state;
  must(loaded.encoder->begin(batch(1), state));
  must(loaded.encoder->run_to(0, state, pool_));
  SwitchEncoder::State moved = std::move(state);
  must(loaded.encoder->route(0, moved, pool_));
  must(loaded.encoder->run_moe(0, moved, pool_, {}));
  must(loaded.encoder->run_to(1, moved, pool_));
  must(loaded.encoder->route(1, moved, pool_));
  must(loaded.encoder->run_moe(1, moved, pool_, {}));
  must(loaded.encoder->finish(moved, pool_));
  EXPECT_EQ(output_bytes(moved), outputs(*loaded.encoder, batch(1), pool_));
  state = SwitchEncoder::State();
  run_batch(*loaded.encoder, batch(1), state, pool_);
}

TEST_F(SwitchState, ShowsEmbeddingsUntilTheNextStep) {
  LoadedEncoder loaded(folder_.path());
  auto const tensors = random_tensors(config_, Dtype::bf16, Dtype::bf16);
  auto const& table = tensors.at("shared.weight").values;
  SwitchEncoder::State state;
  EXPECT_EQ(loaded.encoder->embeddings(state).rows, 0);
  TokenBatch const next = batch(1);
  must(loaded.encoder->begin(next, state));
  auto const embeddings = loaded.encoder->embeddings(state);
  ASSERT_EQ(embeddings.rows, next.tokens());
  ASSERT_EQ(embeddings.cols, config_.d_model);
  for (std::int64_t t = 0; t < embeddings.rows; ++t) {
    auto const first = table.begin() + next.ids[static_cast<std::size_t>(t)] * config_.d_model;
    EXPECT_TRUE(std::equal(first, first + config_.d_model, embeddings.row(t).begin())) << t;
  }
  must(loaded.encoder->run_to(0, state, pool_));
  EXPECT_EQ(loaded.encoder->embeddings(state).rows, 0);
}

TEST_F(SwitchState, RejectsStepsOutOfTurnAndKeepsTheState) {
  LoadedEncoder loaded(folder_.path());
  SwitchEncoder& encoder = *loaded.encoder;
  SwitchEncoder::State state;
  using Step = std::function<Status()>;
  std::vector<Step> const steps = {
      [&] { return encoder.run_to(0, state, pool_); },      [&] { return encoder.route(0, state, pool_); },
      [&] { return encoder.run_moe(0, state, pool_, {}); }, [&] { return encoder.run_to(1, state, pool_); },
      [&] { return encoder.route(1, state, pool_); },       [&] { return encoder.run_moe(1, state, pool_, {}); },
      [&] { return encoder.finish(state, pool_); },
  };
  auto const expect_rejected = [&](std::vector<std::size_t> const& allowed) {
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if (std::find(allowed.begin(), allowed.end(), i) != allowed.end()) continue;
      EXPECT_EQ(steps[i]().code(), Errc::invalid_argument) << "step " << i;
    }
  };
  expect_rejected({});
  must(encoder.begin(batch(1), state));
  for (std::size_t i = 0; i < steps.size(); ++i) {
    // After run_to, route may be left out or come again.
    bool const is_route = i % 3 == 1;
    expect_rejected(is_route     ? std::vector<std::size_t>{i, i + 1}
                    : i % 3 == 2 ? std::vector<std::size_t>{i - 1, i}
                                 : std::vector<std::size_t>{i});
    EXPECT_EQ(state.hidden().rows, 0);
    must(steps[i]());
  }
  expect_rejected({});
  EXPECT_EQ(output_bytes(state), outputs(encoder, batch(1), pool_));
  EXPECT_EQ(encoder.run_to(2, state, pool_).code(), Errc::invalid_argument);
}

TEST_F(SwitchState, RejectsAStateOfAnotherEncoder) {
  LoadedEncoder one(folder_.path());
  LoadedEncoder other(folder_.path());
  SwitchEncoder::State state;
  must(one.encoder->begin(batch(1), state));
  EXPECT_EQ(other.encoder->run_to(0, state, pool_).code(), Errc::invalid_argument);
}

TEST_F(SwitchState, RepeatsAMoeStepAfterAFailedRead) {
  LoadedEncoder good(folder_.path());
  std::string const expected = outputs(*good.encoder, batch(1), pool_);
  HostMemory memory;
  auto const source = std::make_shared<FaultSource>(*good.checkpoint.experts);
  StoreOptions options;
  options.budget_bytes = 2 * slot_bytes_for(good.checkpoint.layout.size_bytes);
  auto const store = value_of(ExpertStore::open(*source, make_host_tier(source, memory, 1), options));
  auto const encoder = value_of(SwitchEncoder::load(good.checkpoint, *store, {}, memory));
  SwitchEncoder::State state;
  must(encoder->begin(batch(1), state));
  for (std::uint32_t layer = 0; layer < 2; ++layer) {
    must(encoder->run_to(layer, state, pool_));
    must(encoder->route(layer, state, pool_));
    source->fault_call(1, Fault::fails);
    EXPECT_EQ(encoder->run_moe(layer, state, pool_, {}).code(), Errc::io);
    must(encoder->run_moe(layer, state, pool_, {}));
  }
  must(encoder->finish(state, pool_));
  EXPECT_EQ(output_bytes(state), expected);
}

}  // namespace
}  // namespace sida::testing
