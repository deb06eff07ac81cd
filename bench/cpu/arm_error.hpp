#pragma once

#include "bench/cpu/expert_arm.hpp"

namespace sida::bench {

/// The largest difference of some rows' results from sums in double precision, over the root mean square of those; NaN
/// where a result is. Over the first expert of the set.
Result<double> arm_error(ArmSpec const& spec, ExpertSet const& experts, ThreadPool& pool);

}  // namespace sida::bench
