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

struct Error {
  int code;
  std::string name;

  /// Whether CUDA has no use of the device after it.
  bool is_lost() const { return code == cudaErrorIllegalAddress || code == cudaErrorLaunchFailure; }
};

/// All that a function may return.
inline std::vector<Error> errors_of(std::string const& function) {
#define SIDA_TEST_CUDA_ERROR(name, number, text) {number, #name},
#define SIDA_TEST_CUBLAS_STATUS(name, number) {number, #name},
  std::vector<Error> errors;
  if (function.starts_with("cublas")) {
    errors = {CUBLAS_ON_HOST_STATUSES(SIDA_TEST_CUBLAS_STATUS)};
  } else {
    errors = {CUDA_ON_HOST_ERRORS(SIDA_TEST_CUDA_ERROR)};
  }
#undef SIDA_TEST_CUDA_ERROR
#undef SIDA_TEST_CUBLAS_STATUS
  errors.erase(errors.begin());  // success
  // Not a failure: cuBLAS has nothing for a shape, and another kernel gives bytes of its own.
  if (function == "cublasLtMatmulAlgoGetHeuristic") {
    std::erase_if(errors, [](Error const& error) { return error.code == CUBLAS_STATUS_NOT_SUPPORTED; });
  }
  return errors;
}

/// Those that the `n`-th call of a function fails with: the first call with all, the others with some in turn. Under
/// sanitizers the first call counts as another, and of many calls every ninth fails.
inline std::vector<Error> errors_of(std::string const& function, int n) {
  std::vector<Error> all = errors_of(function);
  if (n == 1 && !kIsSanitized) return all;
  if (kIsSanitized && n > 4 && n % 9 != 0) return {};
  std::vector<Error> some;
  for (std::size_t i = 0; i < (kIsSanitized ? 1U : 2U); ++i) {
    some.push_back(all[(static_cast<std::size_t>(n) + i * all.size() / 2 + function.size()) % all.size()]);
  }
  return some;
}

/// Every call fails: the scenario must tell CUDA's name of the error, or not mind; its result must be right in the end
/// unless the device is lost, and nothing be left over.
inline void fail_every_call(std::function<Outcome()> const& scenario) {
  cuda_on_host::reset();
  auto const before = cuda_on_host::live();
  Outcome const right = watched(scenario);
  ASSERT_THAT(right.failures, ::testing::IsEmpty());
  ASSERT_EQ(cuda_on_host::live(), before);
  for (auto const& [function, count] : cuda_on_host::calls()) {
    for (int n = 1; n <= count; ++n) {
      for (Error const& error : errors_of(function, n)) {
        SCOPED_TRACE(function + ", call " + std::to_string(n) + " of " + std::to_string(count) + ": " + error.name);
        cuda_on_host::reset();
        cuda_on_host::fail(function, n, error.code);
        try {
          Outcome const outcome = watched(scenario);
          EXPECT_TRUE(outcome.bytes == right.bytes) << "other bytes";
          EXPECT_LE(outcome.failures.size(), 1U);
          EXPECT_THAT(outcome.failures, ::testing::Each(::testing::HasSubstr(error.name)));
        } catch (std::exception const& met) {
          EXPECT_TRUE(error.is_lost()) << "does not recover: " << met.what();
          EXPECT_THAT(met.what(), ::testing::HasSubstr(error.name));
        }
        EXPECT_EQ(cuda_on_host::live(), before) << "a leak";
      }
    }
  }
  cuda_on_host::reset();
}

}  // namespace sida::test
