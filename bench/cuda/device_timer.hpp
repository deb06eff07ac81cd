#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <string>
#include <utility>
#include <vector>

#include "sida/core/result.hpp"
#include "sida/cuda/error.hpp"

namespace sida::bench {

/// A bench has no caller to tell: it says what failed and ends.
inline void must(Status const& status) {
  if (status) return;
  std::fprintf(stderr, "error: %s\n", status.message().c_str());
  std::exit(1);
}
inline void must(cudaError_t error) { must(cuda::check(error, "bench")); }
inline void must(cublasStatus_t status) { must(cuda::check(status, "bench")); }
template <class T>
T take(Result<T> result) {
  if (!result) must(result.status());
  return *std::move(result);
}

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

/// Seconds of `work(stream)` by events: the median of `repeats`, after warm-ups.
template <class Work>
double device_seconds(cudaStream_t stream, int repeats, Work const& work) {
  cudaEvent_t begin = nullptr, end = nullptr;
  must(cudaEventCreate(&begin));
  must(cudaEventCreate(&end));
  std::vector<double> seconds;
  for (int i = -3; i < repeats; ++i) {
    must(cudaEventRecord(begin, stream));
    work(i + 3);
    must(cudaEventRecord(end, stream));
    must(cudaEventSynchronize(end));
    float ms = 0;
    must(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 0) seconds.push_back(static_cast<double>(ms) / 1e3);
  }
  must(cudaEventDestroy(begin));
  must(cudaEventDestroy(end));
  return median(seconds);
}

}  // namespace sida::bench
