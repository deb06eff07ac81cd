#include "sida/route/activation_plan.hpp"

namespace sida::inline v0 {

std::vector<ExpertId> expert_set(std::uint32_t layer, Matrix<std::uint16_t const> experts) {
  std::vector<bool> seen(kNoExpert, false);
  for (std::int64_t token = 0; token < experts.rows; ++token) {
    for (std::uint16_t const expert : experts.row(token)) {
      if (expert != kNoExpert) seen[expert] = true;
    }
  }
  std::vector<ExpertId> set;
  for (std::uint32_t expert = 0; expert < kNoExpert; ++expert) {
    if (seen[expert]) set.push_back({layer, expert});
  }
  return set;
}

}  // namespace sida::inline v0
