#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "sida/core/thread_pool.hpp"

namespace sida::bench {

/// The processor's name as the system gives it, or "unknown".
std::string processor_name();

/// How many threads were running or wanted to, averaged over the last minute; below 0 where the system doesn't say.
double load_average();

/// Bytes per second.
struct ReadRate {
  double median = 0;
  double least = 0;
  double best = 0;
};

/// How fast the pool's threads read `memory` together, which should be far larger than the caches. They read it as one
/// stream each and as several, with prefetches; the result is of the way whose median is better.
ReadRate measure_read_rate(std::span<std::byte const> memory, ThreadPool& pool, int rounds);

}  // namespace sida::bench
