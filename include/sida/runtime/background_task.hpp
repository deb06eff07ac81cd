#pragma once

#include <functional>
#include <thread>

#include "sida/core/api.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0 {

/// Runs one function on a thread of its own; the destructor waits for it.
class SIDA_API BackgroundTask {
 public:
  BackgroundTask() noexcept = default;
  ~BackgroundTask();
  BackgroundTask(BackgroundTask const&) = delete;
  BackgroundTask& operator=(BackgroundTask const&) = delete;

  /// Calls `body` on a new thread, then `done` with what it returned; an exception out of `body` becomes a failure.
  /// Called once. @return out_of_memory when the system gives no thread; `done` isn't called then.
  Status start(std::function<Status()> body, std::function<void(Status)> done);

 private:
  std::thread thread_;
};

}  // namespace sida::inline v0
