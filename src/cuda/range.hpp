#pragma once

#if defined(SIDA_HAS_NVTX)
#include <nvtx3/nvToolsExt.h>
#endif

namespace sida::inline v0::cuda {

/// A span of host time that a profiler shows by name; free without one. Nothing where the build found no NVTX.
class Range {
 public:
#if defined(SIDA_HAS_NVTX)
  explicit Range(char const* name) noexcept { nvtxRangePushA(name); }
  ~Range() { nvtxRangePop(); }
  /// Before threads use ranges: NVTX's own first call is no business of several.
  static void prepare() noexcept { nvtxInitialize(nullptr); }
#else
  explicit Range(char const*) noexcept {}
  ~Range() {}
  static void prepare() noexcept {}
#endif
  Range(Range const&) = delete;
  Range& operator=(Range const&) = delete;
};

}  // namespace sida::inline v0::cuda
