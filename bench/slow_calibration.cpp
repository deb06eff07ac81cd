#include "bench/slow_calibration.hpp"

#include <algorithm>
#include <cmath>

#include "sida/detail/try.hpp"

namespace sida::bench {

Result<DiskSpeed> calibrate(Arm& on_demand, SlowDisk& disk, std::chrono::microseconds latency,
                            cli::InputRows const& input, cli::Session const& session) {
  constexpr int kTries = 5;
  constexpr double kCloseEnough = 0.03;
  disk.set({});
  SIDA_TRY_ASSIGN(ArmRun run, on_demand.run(input, session));
  if (run.store.bytes_loaded == 0) return Error(Errc::invalid_argument, "nothing is loaded on demand: nothing to slow");
  auto const bytes = static_cast<double>(run.store.bytes_loaded);
  DiskSpeed speed{.bytes_per_s = bytes / run.compute_s(), .latency = latency};  // one transfer after another
  for (int i = 0; i < kTries; ++i) {
    disk.set(speed);
    SIDA_TRY_ASSIGN(run, on_demand.run(input, session));
    double const off = run.stall_s() / run.compute_s();
    if (std::abs(off - 1) < kCloseEnough) break;
    // The wait for transfers is what can be changed; the rest of the stall is latency and what loading costs anyway.
    double const transfer = bytes / speed.bytes_per_s;
    double const wanted = std::max(transfer + run.compute_s() - run.stall_s(), transfer / 4);
    speed.bytes_per_s = bytes / wanted;
  }
  disk.set(speed);
  return speed;
}

}  // namespace sida::bench
