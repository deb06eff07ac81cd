#pragma once

#include <chrono>
#include <cstdlib>
#include <cublas_v2.h>
#include <exception>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda_on_host/control.hpp"
#include <gmock/gmock.h>

#include "tests/cuda/device_fixture.hpp"

/// For the stand-in for CUDA only: each of its calls, made by some scenario, is made to fail.
namespace sida::test {

struct Outcome {
  std::vector<std::string> failures;  // that the scenario met, and got over
  std::string bytes;                  // its result
};

/// Calls `step`, and once more if it throws: then the fault is gone.
template <class Step>
void retried(Outcome& outcome, Step const& step) {
  try {
    return step();
  } catch (std::exception const& error) {
    outcome.failures.emplace_back(error.what());
  }
  step();
}

/// Runs it on a thread of its own, which CUDA and sida know nothing of yet, for a minute at most.
inline Outcome watched(std::function<Outcome()> const& scenario) {
  std::packaged_task<Outcome()> task(scenario);
  auto outcome = task.get_future();
  std::thread thread(std::move(task));
  if (outcome.wait_for(std::chrono::minutes(1)) != std::future_status::ready) {
    ADD_FAILURE() << "hangs";
    std::abort();  // with the stacks of all threads
  }
  thread.join();
  return outcome.get();
}

/// Every call fails once, with each of two errors: the scenario must tell CUDA's name of it, or not mind; its result
/// must be right in the end, and nothing be left over. Under sanitizers the errors take turns, and of many calls of a
/// function every third fails.
inline void fail_every_call(std::function<Outcome()> const& scenario) {
  cuda_on_host::reset();
  auto const before = cuda_on_host::live();
  Outcome const right = watched(scenario);
  ASSERT_THAT(right.failures, ::testing::IsEmpty());
  ASSERT_EQ(cuda_on_host::live(), before);
  struct Error {
    int code;
    char const* name;
  };
  for (auto const& [function, count] : cuda_on_host::calls()) {
    bool const is_blas = function.starts_with("cublas");
    Error const unknown = is_blas ? Error{CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED"}
                                  : Error{cudaErrorUnknown, "cudaErrorUnknown"};
    Error const memory = is_blas ? Error{CUBLAS_STATUS_ALLOC_FAILED, "CUBLAS_STATUS_ALLOC_FAILED"}
                                 : Error{cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation"};
    for (int n = 1; n <= count; ++n) {
      for (bool const is_memory : {false, true}) {
        if (kIsSanitized && (is_memory != (n % 2 == 0) || (n > 8 && n % 3 != 0))) continue;
        Error const& error = is_memory ? memory : unknown;
        SCOPED_TRACE(function + ", call " + std::to_string(n) + " of " + std::to_string(count) + ": " + error.name);
        cuda_on_host::reset();
        cuda_on_host::fail(function, n, error.code);
        Outcome outcome;
        try {
          outcome = watched(scenario);
        } catch (std::exception const& met) {
          ADD_FAILURE() << "does not recover: " << met.what();
        }
        EXPECT_TRUE(outcome.bytes == right.bytes) << "other bytes";
        EXPECT_LE(outcome.failures.size(), 1U);
        EXPECT_THAT(outcome.failures, ::testing::Each(::testing::HasSubstr(error.name)));
        EXPECT_EQ(cuda_on_host::live(), before) << "a leak";
      }
    }
  }
  cuda_on_host::reset();
}

}  // namespace sida::test
