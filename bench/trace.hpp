#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "sida/core/expert_id.hpp"

namespace sida::bench {

/// What a thread does in a run.
enum class TraceRole : std::uint8_t { inference, hash_building, reading };

/// One thing that a thread did, or waited for.
struct TraceSpan {
  using Clock = std::chrono::steady_clock;

  TraceRole role = TraceRole::inference;
  std::string name;
  Clock::time_point begin;
  Clock::time_point end;
  std::vector<ExpertId> experts = {};  ///< read, run or waited for
  bool is_wait = false;                ///< for the reads of `experts`
  std::thread::id thread = std::this_thread::get_id();
};

/// Collects spans while it is on; costs an atomic load while it is off. Thread-safe.
class Trace {
 public:
  void turn_on() { on_.store(true); }
  void turn_off() { on_.store(false); }
  bool is_on() const noexcept { return on_.load(std::memory_order_relaxed); }
  void add(TraceSpan span);
  /// Everything so far, by begin.
  std::vector<TraceSpan> spans() const;

 private:
  std::atomic<bool> on_{false};
  mutable std::mutex mutex_;
  std::vector<TraceSpan> spans_;
};

/// The spans of one run, under its name.
struct TracedRun {
  std::string name;
  std::vector<TraceSpan> spans;
};

/// JSON in Chrome's trace-event format, as Perfetto and chrome://tracing open it: a process for each run, a lane for
/// each thread, and an arrow from every read to the wait that it ended.
std::string chrome_trace(std::span<TracedRun const> runs);

}  // namespace sida::bench
