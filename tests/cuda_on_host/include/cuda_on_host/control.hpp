#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime.h>
#include <string>
#include <string_view>

/// What tests may see and change of the stand-in for CUDA.
namespace cuda_on_host {

/// Lets all streams run dry, then forgets calls, failures and modes. Objects stay: see `live`.
void reset();

/// Calls since the last reset, of one function ("cudaMalloc") or of all together.
int calls(std::string_view function);
int calls();

/// The `n`-th call from now (1: the next) of `function`, or with "" of any function, returns `error`; a status of
/// cuBLAS for a function of cuBLAS that is named. A call that fails does nothing, except that one that waits or frees
/// waits or frees all the same: CUDA reports earlier failures there.
void fail(std::string_view function, int n, int error);

/// Every function returns this: cudaErrorNoDevice or cudaErrorInsufficientDriver, say. cudaSuccess ends it.
void set_device_error(cudaError_t error);

/// What the device seems to have, in bytes.
void set_total_memory(std::size_t bytes);

/// A copy's destination is filled with 0xFF as early as is legal.
void poison_destinations();
/// A copy runs only when something waits for it, or asks after it: a synchronize, a query, another stream.
void hold_copies();
/// Each piece of work waits at random before it runs.
void shuffle(std::uint64_t seed);

/// Objects that were made and not yet destroyed.
struct Live {
  std::size_t device_allocations = 0;
  std::size_t pinned_ranges = 0;  // registered or from cudaMallocHost
  std::size_t streams = 0;
  std::size_t events = 0;
  std::size_t cublas_handles = 0;
  bool operator==(Live const&) const = default;
};
Live live();

/// What went wrong on the device since the last reset, which CUDA tells by a number only; empty if nothing did.
std::string failure();

}  // namespace cuda_on_host
