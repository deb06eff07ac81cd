#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <utility>

#include "sida/core/result.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/detail/try.hpp"
#include "sida/predict/predictor.hpp"
#include "sida/route/token_batch.hpp"
#include "sida/runtime/background_task.hpp"
#include "sida/runtime/batch_steps.hpp"
#include "sida/runtime/bounded_queue.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::inline v0 {

/// Where batches come from. `next` is called on the hash-building thread until it gives nothing. It may block, but
/// has to notice by itself when the run is stopped.
template <class S>
concept BatchSource = requires(S& source) {
  { source.next() } -> std::same_as<Result<std::optional<TokenBatch>>>;
};

/// When inference begins.
enum class PipelineStart : std::uint8_t {
  at_once,         ///< as soon as there is a batch
  when_plans_are,  ///< when `lookahead` batches are planned, so that the first loads already know what follows
};

/// Where the time of a run went.
struct PipelineStats {
  std::uint64_t predict_ns = 0;    ///< the hash-building thread embedded and predicted
  std::uint64_t plan_wait_ns = 0;  ///< the inference thread waited for a plan, the first one included
  std::uint64_t room_wait_ns = 0;  ///< the hash-building thread waited for the inference thread
};

struct PipelineOptions {
  RunMode mode = RunMode::exact;
  /// Whether the store is told of plans. In predicted mode they decide in any case.
  bool submits_plans = true;
  /// Batches after the running one that the store may know plans of. At least one batch is made ahead in any case.
  std::size_t lookahead = 8;
  PipelineStart start = PipelineStart::at_once;
  /// Ends the run between two steps. A step that waits for a store is woken by the store's own `cancel`.
  std::stop_token stop = {};
  /// Embeddings of a batch for the predictor, valid until the next call; called on the hash-building thread. May be
  /// empty: the predictor is then given none.
  std::function<Result<Matrix<float const>>(TokenBatch const&)> embed = {};
  /// If not null, added to before `run_pipeline` returns.
  PipelineStats* stats = nullptr;
};

namespace detail {

/// Adds the time of its life to a sum.
class Stopwatch {
 public:
  explicit Stopwatch(std::uint64_t& sum_ns) noexcept : sum_ns_(sum_ns) {}
  Stopwatch(Stopwatch const&) = delete;
  Stopwatch& operator=(Stopwatch const&) = delete;
  ~Stopwatch() {
    auto const time = std::chrono::steady_clock::now() - began_;
    sum_ns_ += static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
  }

 private:
  std::uint64_t& sum_ns_;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

/// Cancels a queue that nobody will read from any more. Nor does anybody see the reason: the consumer has its own.
class CancelOnExit {
 public:
  explicit CancelOnExit(BoundedQueue<PlannedBatch>& queue) noexcept : queue_(queue) {}
  CancelOnExit(CancelOnExit const&) = delete;
  CancelOnExit& operator=(CancelOnExit const&) = delete;
  ~CancelOnExit() { queue_.cancel(Error(Errc::cancelled, "the run is over")); }

 private:
  BoundedQueue<PlannedBatch>& queue_;
};

template <Predictor P>
Result<ActivationPlan> make_plan(P& predictor, TokenBatch const& batch, PipelineOptions const& options) {
  Matrix<float const> embeddings;
  if (options.embed) {
    SIDA_TRY_ASSIGN(embeddings, options.embed(batch));
  }
  return predictor.predict(PredictorInput{batch, embeddings});
}

/// The hash-building thread: batches, their plans, and the store's knowledge of them.
template <Predictor P, BatchSource S>
Status build_plans(S& source, P& predictor, ExpertStore& store, PipelineOptions const& options,
                   BoundedQueue<PlannedBatch>& queue, PipelineStats& stats) {
  for (;;) {
    SIDA_TRY_ASSIGN(std::optional<TokenBatch> batch, source.next());
    if (!batch) return {};
    PlannedBatch planned{.batch = *std::move(batch), .plan = {}, .submitted = {}};
    {
      Stopwatch const watch(stats.predict_ns);
      SIDA_TRY_ASSIGN(planned.plan, make_plan(predictor, planned.batch, options));
    }
    {
      // Room first: what the store knows is what the queue holds, never more.
      Stopwatch const watch(stats.room_wait_ns);
      SIDA_TRY(queue.wait_for_room());
    }
    if (options.submits_plans && options.lookahead > 0) {
      SIDA_TRY_ASSIGN(planned.submitted, SubmittedPlan::submit(store, planned.plan));
    }
    SIDA_TRY(queue.push(std::move(planned)));
  }
}

/// The inference thread: one batch after another.
template <SteppingModel M, Predictor P, BatchObserver<M> O>
Status consume_plans(StepContext<M, P, O> const& context, ExpertStore& store, PipelineOptions const& options,
                     BoundedQueue<PlannedBatch>& queue, PipelineStats& stats) {
  typename M::State state;
  if (options.start == PipelineStart::when_plans_are) {
    Stopwatch const watch(stats.plan_wait_ns);
    queue.wait_until_full();
  }
  auto const next = [&] {
    Stopwatch const watch(stats.plan_wait_ns);
    return queue.pop();
  };
  for (;;) {
    SIDA_TRY_ASSIGN(std::optional<PlannedBatch> planned, next());
    if (!planned) return {};
    if (options.submits_plans && options.lookahead == 0) {
      SIDA_TRY_ASSIGN(planned->submitted, SubmittedPlan::submit(store, planned->plan));
    }
    SIDA_TRY(run_batch(context, *planned, state));
  }
}

}  // namespace detail

/// From batches to answers. A thread of its own makes batches and plans ahead of the calling thread, which runs the
/// model; results reach `observer` in the order of the batches. Batches that were made before `source` or `predictor`
/// failed are still answered. `store` is the one that the model's layers use.
/// @return the first error of either side; cancelled after a stop. All threads have ended by then and no plan is left
/// in the store; so too where an exception leaves the model or the observer, which passes through.
template <SteppingModel M, Predictor P, BatchSource S, BatchObserver<M> O>
Status run_pipeline(M& model, P& predictor, S& source, O& observer, ExpertStore& store, ThreadPool& pool,
                    PipelineOptions const& options = {}) {
  BoundedQueue<PlannedBatch> queue(std::max<std::size_t>(options.lookahead, 1));
  std::stop_callback const on_stop(options.stop,
                                   [&queue] { queue.cancel(Error(Errc::cancelled, "the run was stopped")); });
  PipelineStats produced;
  PipelineStats consumed;
  Status status;
  {
    BackgroundTask producer;  // waits in its destructor, before the queue goes
    SIDA_TRY(producer.start([&] { return detail::build_plans(source, predictor, store, options, queue, produced); },
                            [&queue](Status ended) { queue.close(std::move(ended)); }));
    // Ends first, whatever happens: a producer that waits for room would be waited for in vain.
    detail::CancelOnExit const release_producer(queue);
    StepContext<M, P, O> const context{model, predictor, observer, pool, options.stop, options.mode};
    status = detail::consume_plans(context, store, options, queue, consumed);
  }
  if (options.stats != nullptr) {
    options.stats->predict_ns += produced.predict_ns;
    options.stats->room_wait_ns += produced.room_wait_ns;
    options.stats->plan_wait_ns += consumed.plan_wait_ns;
  }
  return status;
}

}  // namespace sida::inline v0
