#pragma once

#include <atomic>
#include <stop_token>
#include <thread>

namespace sida::cli {

/// Turns SIGINT and SIGTERM into a stop request while it lives. The request comes from a thread of its own, so that
/// stop callbacks may lock; a second signal kills the process. One at a time per process.
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
