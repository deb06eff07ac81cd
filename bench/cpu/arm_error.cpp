#include "bench/cpu/arm_error.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "sida/core/matrix.hpp"
#include "sida/detail/try.hpp"
#include "sida/layer/expert_ffn.hpp"

namespace sida::bench {

Result<double> arm_error(ArmSpec const& spec, ExpertSet const& experts, ThreadPool& pool) {
  constexpr std::int64_t kModel = ExpertSet::kModel, kRows = 9;  // a number that is no multiple of a tile's
  std::int64_t const rows = spec.only_rows != 0 ? spec.only_rows : kRows;
  auto const x = random_numbers(static_cast<std::size_t>(rows * kModel), 1.0F, 4);
  std::vector<float> y(x.size()), exact(x.size());
  SIDA_TRY_ASSIGN(auto const arm, spec.open({experts, rows, pool}));
  SIDA_TRY(arm->run(0, x.data(), y.data()));
  reference_expert_ffn(experts.layout(), experts.records().front(), Matrix<float const>(x.data(), rows, kModel),
                       Matrix<float>(exact.data(), rows, kModel));
  double largest = 0, squares = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    double const difference = std::abs(double{y[i]} - double{exact[i]});
    if (std::isnan(difference)) return difference;
    largest = std::max(largest, difference);
    squares += double{exact[i]} * double{exact[i]};
  }
  return largest / std::sqrt(squares / static_cast<double>(exact.size()));
}

}  // namespace sida::bench
