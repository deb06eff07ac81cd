#pragma once

#include <atomic>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

namespace sida::cli {

/// A file that a second signal removes before it kills the process, or a folder, if nothing else is in it by then.
/// There is room for a few at a time; those beyond it stay behind. Move-only.
class RemovedWhenKilled {
 public:
  RemovedWhenKilled() = default;
  explicit RemovedWhenKilled(std::string const& path) noexcept;
  RemovedWhenKilled(RemovedWhenKilled&& other) noexcept : place_(std::exchange(other.place_, -1)) {}
  RemovedWhenKilled& operator=(RemovedWhenKilled&& other) noexcept {
    std::swap(place_, other.place_);
    return *this;
  }
  ~RemovedWhenKilled();

 private:
  int place_ = -1;
};

/// Turns SIGINT, SIGTERM and, unless it is ignored as under nohup, SIGHUP into a stop request while it lives. The
/// request comes from a thread of its own, so that stop callbacks may lock; a second signal kills the process, after it
/// has removed what `RemovedWhenKilled` names. One at a time per process.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(Interrupt const&) = delete;
  Interrupt& operator=(Interrupt const&) = delete;

  std::stop_token stop() const noexcept { return source_.get_token(); }
  /// Set by the handler, before `stop` is requested.
  static std::atomic<bool> const& signalled() noexcept;

 private:
  std::stop_source source_;
  std::thread watcher_;
};

}  // namespace sida::cli
