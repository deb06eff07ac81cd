#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/cpu/expert_arm.hpp"

namespace sida::bench {

struct ArmTimes {
  std::string name;
  bool is_sida = false;
  std::vector<double> seconds;  ///< of one expert, for each round
};

/// Runs every arm once a round, in a new order each. All of them, one after the other, take their experts from one
/// cycle through the whole set: when an expert's turn comes again, as many bytes as the set has were read since. Arms
/// that are for another number of rows are left out.
Result<std::vector<ArmTimes>> run_rounds(std::span<ArmSpec const> specs, ArmTask const& task, int rounds);

/// The round's time of the first as a multiple of the second's, median over the rounds.
double median_ratio(ArmTimes const& first, ArmTimes const& second);

/// That of sida's arms whose median time is least. Precondition: there is one.
ArmTimes const& fastest_of_sida(std::span<ArmTimes const> arms);

}  // namespace sida::bench
