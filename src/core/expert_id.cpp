#include "sida/core/expert_id.hpp"

namespace sida::inline v0 {

std::string to_string(ExpertId id) {
  return "layer " + std::to_string(id.layer) + " expert " + std::to_string(id.expert);
}

}  // namespace sida::inline v0
