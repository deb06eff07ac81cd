#include "bench/slow_calibration.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "sida/detail/try.hpp"

namespace sida::bench {
namespace {

/// Where the time of a run goes: medians over a few, since the processor's own speed varies by more than is wanted
/// here.
struct Share {
  double stall_s = 0;
  double compute_s = 0;
  double bytes = 0;
};

Result<Share> measure(Arm& arm, cli::InputRows const& input, cli::Session const& session) {
  constexpr std::size_t kRuns = 3;
  std::vector<double> stalls;
  std::vector<double> computes;
  Share share;
  for (std::size_t i = 0; i < kRuns; ++i) {
    SIDA_TRY_ASSIGN(ArmRun const run, arm.run(input, session));
    stalls.push_back(run.stall_s());
    computes.push_back(run.compute_s());
    share.bytes = static_cast<double>(run.store.bytes_loaded);  // the same each time
  }
  for (auto* values : {&stalls, &computes}) std::ranges::sort(*values);
  share.stall_s = stalls[kRuns / 2];
  share.compute_s = computes[kRuns / 2];
  return share;
}

}  // namespace

Result<DiskSpeed> calibrate(Arm& on_demand, SlowDisk& disk, std::chrono::microseconds latency,
                            cli::InputRows const& input, cli::Session const& session) {
  constexpr int kTries = 5;
  constexpr double kCloseEnough = 0.03;
  disk.set({});
  SIDA_TRY_ASSIGN(Share share, measure(on_demand, input, session));
  if (share.bytes == 0) return Error(Errc::invalid_argument, "nothing is loaded on demand: nothing to slow");
  DiskSpeed speed{.bytes_per_s = share.bytes / share.compute_s, .latency = latency};  // one transfer after another
  for (int i = 0; i < kTries; ++i) {
    disk.set(speed);
    SIDA_TRY_ASSIGN(share, measure(on_demand, input, session));
    if (std::abs(share.stall_s / share.compute_s - 1) < kCloseEnough) break;
    // The wait for transfers is what can be changed; the rest of the stall is latency and what loading costs anyway.
    double const transfer_s = share.bytes / speed.bytes_per_s;
    double const wanted_s = std::max(transfer_s + share.compute_s - share.stall_s, transfer_s / 4);
    speed.bytes_per_s = share.bytes / wanted_s;
  }
  disk.set(speed);
  return speed;
}

}  // namespace sida::bench
