#pragma once

#include <vector>

#include "bench/cpu/expert_arm.hpp"

namespace sida::bench {

/// Whether rows have the bytes that they have among `kRows` others, in other company.
struct RowIndependence {
  static constexpr std::int64_t kRows = 300;

  bool alone = false;      ///< each row by itself
  bool in_sevens = false;  ///< seven at a time, and those that are left
  std::vector<float> all;  ///< [kRows, ExpertSet::kModel], computed at once
};

/// Over the first expert of the set. Precondition: the arm takes any number of rows.
Result<RowIndependence> row_independence(ArmSpec const& spec, ExpertSet const& experts, ThreadPool& pool);

bool same_bytes(std::vector<float> const& a, std::vector<float> const& b);

}  // namespace sida::bench
