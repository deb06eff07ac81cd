#include "bench/cpu/machine.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>

#include "bench/cpu/seconds.hpp"

namespace sida::bench {
namespace {

/// A cache line, in whatever registers the compiler is given.
using Line = std::uint64_t __attribute__((vector_size(64)));

constexpr std::size_t kAhead = 1024;                  // bytes from what is read to what is asked for
constexpr std::size_t kBlock = std::size_t{4} << 20;  // of one task
std::atomic<std::uint64_t> g_sum;                     // so that no read is left out

/// The lines of `from`, as so many streams side by side: a processor's prefetchers may serve several better than one.
template <int Streams>
std::uint64_t sum_lines(std::byte const* from) {
  constexpr std::size_t kPart = kBlock / Streams;
  constexpr int kUnrolled = 4 / Streams;
  Line sums[Streams][kUnrolled] = {};
  for (std::size_t i = 0; i < kPart; i += kUnrolled * sizeof(Line)) {
    for (std::size_t s = 0; s < Streams; ++s) {
      for (std::size_t u = 0; u < kUnrolled; ++u) {
        std::byte const* const at = from + s * kPart + i + u * sizeof(Line);
        __builtin_prefetch(at + kAhead);
        Line line;
        std::memcpy(&line, at, sizeof line);
        sums[s][u] += line;
      }
    }
  }
  Line total = {};
  for (auto const& stream : sums) {
    for (Line const& sum : stream) total += sum;
  }
  return total[0] + total[3] + total[7];
}

template <int Streams>
double read_once(std::span<std::byte const> memory, ThreadPool& pool) {
  std::size_t const blocks = memory.size() / kBlock;
  auto const task = [&](std::size_t i) { g_sum += sum_lines<Streams>(memory.data() + i * kBlock); };
  double const seconds = seconds_of([&] { pool.run(blocks, task); });
  return static_cast<double>(blocks * kBlock) / seconds;
}

ReadRate rate_of(std::vector<double> const& rates) {
  auto const [least, best] = std::ranges::minmax(rates);
  return {.median = median(rates), .least = least, .best = best};
}

}  // namespace

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    auto const colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

double load_average() {
  double load = -1;
  return ::getloadavg(&load, 1) == 1 ? load : -1;
}

ReadRate measure_read_rate(std::span<std::byte const> memory, ThreadPool& pool, int rounds) {
  std::vector<double> one, four;
  for (int round = -1; round < rounds; ++round) {
    double const as_one = read_once<1>(memory, pool);
    double const as_four = read_once<4>(memory, pool);
    if (round < 0) continue;  // the first touches pages and wakes threads
    one.push_back(as_one);
    four.push_back(as_four);
  }
  ReadRate const first = rate_of(one), second = rate_of(four);
  return first.median > second.median ? first : second;
}

}  // namespace sida::bench
