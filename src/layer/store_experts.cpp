#include "sida/detail/moe_layer_core.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::detail {

Status StoreExperts::begin(std::span<ExpertId const> experts) {
  SIDA_TRY_ASSIGN(DemandEvent event, store_.begin_event(experts, position_));
  event_.emplace(std::move(event));
  return {};
}

Result<std::span<LeasedExpert const>> StoreExperts::next_wave() {
  wave_.release();
  if (event_->done()) return std::span<LeasedExpert const>();
  SIDA_TRY_ASSIGN(wave_, event_->next_wave(reader_));
  return wave_.experts();
}

}  // namespace sida::inline v0::detail
