#pragma once

#include <chrono>

#include "bench/arms.hpp"
#include "bench/slow_source.hpp"
#include "cli/command.hpp"
#include "cli/run_input.hpp"
#include "sida/core/result.hpp"

namespace sida::bench {

/// Slows `disk` until `on_demand` waits about as long as it computes, and leaves it so: the case in which overlap has
/// the most to win. Runs the arm a few times. @return what Arm::run returns; invalid_argument when it loads nothing.
Result<DiskSpeed> calibrate(Arm& on_demand, SlowDisk& disk, std::chrono::microseconds latency,
                            cli::InputRows const& input, cli::Session const& session);

}  // namespace sida::bench
