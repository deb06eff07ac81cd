#include "bench/cpu/ffn_rounds.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <utility>

#include "bench/cpu/seconds.hpp"
#include "sida/detail/try.hpp"

namespace sida::bench {
namespace {

/// Arms' turns, over one cycle of experts.
class Turns {
 public:
  explicit Turns(ArmTask const& task)
      : experts_(task.experts.size()),
        x_(random_numbers(static_cast<std::size_t>(task.rows * ExpertSet::kModel), 1.0F, 2)),
        y_(x_.size()) {}

  /// Seconds of one expert, over some: fewer if they take long.
  Result<double> take(ExpertArm& arm) {
    using Clock = std::chrono::steady_clock;
    constexpr int kMost = 12;
    constexpr double kEnough = 0.06;  // seconds
    // Idle threads of OpenMP and OpenBLAS spin for a while, and would take the next arm's processors.
    std::this_thread::sleep_for(std::chrono::milliseconds(40));
    SIDA_TRY(arm.run(next(), x_.data(), y_.data()));  // wakes the arm's own threads
    auto const began = Clock::now();
    double seconds = 0;
    int count = 0;
    while (count < kMost && seconds < kEnough) {
      SIDA_TRY(arm.run(next(), x_.data(), y_.data()));
      ++count;
      seconds = std::chrono::duration<double>(Clock::now() - began).count();
    }
    return seconds / count;
  }

 private:
  std::size_t next() { return std::exchange(next_, (next_ + 1) % experts_); }

  std::size_t experts_;
  std::size_t next_ = 0;
  std::vector<float> x_, y_;
};

}  // namespace

Result<std::vector<ArmTimes>> run_rounds(std::span<ArmSpec const> specs, ArmTask const& task, int rounds) {
  std::vector<std::unique_ptr<ExpertArm>> arms;
  std::vector<ArmTimes> times;
  for (ArmSpec const& spec : specs) {
    if (spec.only_rows != 0 && spec.only_rows != task.rows) continue;
    auto arm = spec.open(task);
    if (!arm) return std::move(arm).error().with_context(spec.name);
    arms.push_back(*std::move(arm));
    times.push_back({spec.name, spec.is_sida, {}});
  }
  Turns turns(task);
  for (auto const& arm : arms) SIDA_TRY(turns.take(*arm).status());
  std::mt19937 random(1);
  std::vector<std::size_t> order(arms.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (int round = 0; round < rounds; ++round) {
    std::ranges::shuffle(order, random);
    for (std::size_t const i : order) {
      SIDA_TRY_ASSIGN(double const seconds, turns.take(*arms[i]));
      times[i].seconds.push_back(seconds);
    }
  }
  return times;
}

double median_ratio(ArmTimes const& first, ArmTimes const& second) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < first.seconds.size(); ++i) ratios.push_back(first.seconds[i] / second.seconds[i]);
  return median(ratios);
}

ArmTimes const& fastest_of_sida(std::span<ArmTimes const> arms) {
  auto const key = [](ArmTimes const& arm) { return std::pair(!arm.is_sida, median(arm.seconds)); };
  return *std::ranges::min_element(arms, {}, key);
}

}  // namespace sida::bench
