#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime.h>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

/// What tests may see and change of the stand-in for CUDA.
namespace cuda_on_host {

/// How things go from now on.
struct Modes {
  bool poison_destinations = false;  ///< A copy's destination is filled with 0xFF as early as is legal.
  bool hold_copies = false;          ///< A copy runs only when something waits for it or asks after it.
  std::optional<std::uint64_t> shuffle = std::nullopt;  ///< A seed: each piece of work waits at random before it runs.
};
void set(Modes const& modes);

/// In place of an earlier wish: the `n`-th call from now (1: the next) of `function` returns `error`: a status of
/// cuBLAS for a function of cuBLAS. A call that fails does nothing, except that one that waits or frees waits or frees
/// all the same: CUDA reports earlier failures there. After cudaErrorIllegalAddress and cudaErrorLaunchFailure the
/// device is lost, as with CUDA: whatever is called returns the same until `reset`, and nothing runs.
void fail(std::string_view function, int n, int error);

/// Calls of each function since the last reset, by its name: "cudaMalloc".
using Calls = std::map<std::string, int, std::less<>>;
Calls calls();

/// What went wrong on the device, which CUDA tells by a number only; empty if nothing did.
std::string failure();

/// Objects that were made and not yet destroyed.
struct Live {
  std::size_t device_allocations = 0;
  std::size_t pinned_ranges = 0;
  std::size_t streams = 0;
  std::size_t events = 0;
  std::size_t cublas_handles = 0;
  bool operator==(Live const&) const = default;
};
Live live();

/// Lets all streams run dry, then forgets calls, failures and modes. Objects stay.
void reset();

}  // namespace cuda_on_host
