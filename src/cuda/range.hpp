#pragma once

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define SIDA_HAS_NVTX 1
#endif

namespace sida::inline v0::cuda {

/// A span of host time that a profiler shows by name; free without one. Nothing where NVTX isn't installed.
class Range {
 public:
#if defined(SIDA_HAS_NVTX)
  explicit Range(char const* name) noexcept { nvtxRangePushA(name); }
  ~Range() { nvtxRangePop(); }
#else
  explicit Range(char const*) noexcept {}
  ~Range() {}
#endif
  Range(Range const&) = delete;
  Range& operator=(Range const&) = delete;
};

}  // namespace sida::inline v0::cuda
