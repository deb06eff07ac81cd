#include "bench/cpu/row_independence.hpp"

#include <cstring>

#include "sida/detail/try.hpp"

namespace sida::bench {
namespace {

constexpr auto kRows = RowIndependence::kRows;
constexpr auto kModel = ExpertSet::kModel;

/// All rows, so many at a time.
Result<std::vector<float>> in_groups(ArmSpec const& spec, ExpertSet const& experts, ThreadPool& pool,
                                     std::vector<float> const& x, std::int64_t group) {
  std::vector<float> y(x.size());
  std::int64_t const whole = kRows / group * group;
  SIDA_TRY_ASSIGN(auto const arm, spec.open({experts, group, pool}));
  for (std::int64_t row = 0; row < whole; row += group) {
    SIDA_TRY(arm->run(0, x.data() + row * kModel, y.data() + row * kModel));
  }
  if (whole < kRows) {
    SIDA_TRY_ASSIGN(auto const rest, spec.open({experts, kRows - whole, pool}));
    SIDA_TRY(rest->run(0, x.data() + whole * kModel, y.data() + whole * kModel));
  }
  return y;
}

}  // namespace

Result<RowIndependence> row_independence(ArmSpec const& spec, ExpertSet const& experts, ThreadPool& pool) {
  auto const x = random_numbers(static_cast<std::size_t>(kRows * kModel), 1.0F, 3);
  RowIndependence found;
  SIDA_TRY_ASSIGN(found.all, in_groups(spec, experts, pool, x, kRows));
  SIDA_TRY_ASSIGN(auto const alone, in_groups(spec, experts, pool, x, 1));
  SIDA_TRY_ASSIGN(auto const in_sevens, in_groups(spec, experts, pool, x, 7));
  found.alone = same_bytes(alone, found.all);
  found.in_sevens = same_bytes(in_sevens, found.all);
  return found;
}

bool same_bytes(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace sida::bench
