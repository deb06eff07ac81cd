#include "sida/runtime/background_task.hpp"

#include <exception>
#include <new>
#include <string>
#include <thread>
#include <utility>

namespace sida::inline v0 {
namespace {

Status call(std::function<Status()> const& body) {
  try {
    return body();
  } catch (std::bad_alloc const&) {
    return {Errc::out_of_memory, "a background task ran out of memory"};
  } catch (std::exception const& error) {
    return {Errc::invalid_argument, std::string("a background task threw: ") + error.what()};
  } catch (...) {
    return {Errc::invalid_argument, "a background task threw"};
  }
}

}  // namespace

Status BackgroundTask::start(std::function<Status()> body, std::function<void(Status)> done) {
  try {
    thread_ = std::thread([body = std::move(body), done = std::move(done)] { done(call(body)); });
  } catch (std::exception const& error) {  // no thread, or no memory for one
    return {Errc::out_of_memory, std::string("cannot start a thread: ") + error.what()};
  }
  return {};
}

BackgroundTask::~BackgroundTask() {
  if (thread_.joinable()) thread_.join();
}

}  // namespace sida::inline v0
