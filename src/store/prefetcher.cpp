#include "store/prefetcher.hpp"

#include <algorithm>
#include <vector>

namespace sida::inline v0 {
namespace {

// Reality leaves a schedule soon, so that a long one is work in vain.
constexpr std::size_t kMostPlanned = 64;
constexpr std::size_t kFewPlanned = 16;

}  // namespace

std::optional<Prefetcher::Move> Prefetcher::next(SlotTable const& table, Horizon const& horizon) {
  if (horizon.empty()) return std::nullopt;
  return rule_ == Rule::eager ? next_eager(table, horizon) : next_planned(table, horizon);
}

std::optional<Prefetcher::Move> Prefetcher::next_eager(SlotTable const& table, Horizon const& horizon) const {
  for (auto const& event : horizon.events()) {
    for (ExpertIndex const expert : event.experts) {
      if (!table.absent(expert) || table.prefetch_failed(expert)) continue;
      if (table.free_slots() > 0) return Move{expert, std::nullopt, event.demanded};
      auto const candidates = table.victims_after(event.position, horizon);
      if (candidates.empty()) return std::nullopt;  // later events have no more candidates than this one
      return Move{expert, table.policy().choose_victim(candidates, horizon), event.demanded};
    }
  }
  return std::nullopt;
}

void Prefetcher::plan(SlotTable const& table, Horizon const& horizon) {
  std::vector<ExpertSet> events;
  events.reserve(horizon.events().size());
  for (auto const& event : horizon.events()) events.emplace_back(event.experts);
  auto const residents = table.residents();
  std::vector<std::uint64_t> last_use(table.experts());
  for (ExpertIndex const expert : residents) last_use[expert] = table.policy().last_use(expert);
  schedule_.clear();
  for (auto const& load : belady_schedule(events, residents, table.experts(), table.slots(), last_use, kMostPlanned)) {
    auto const& event = horizon.events()[load.event];
    schedule_.push_back({{load.load, load.victim, event.demanded}, event.position});
  }
  stale_ = false;
  is_cut_ = schedule_.size() >= kMostPlanned;
}

std::optional<Prefetcher::Move> Prefetcher::next_planned(SlotTable const& table, Horizon const& horizon) {
  if (stale_ || (is_cut_ && schedule_.size() < kFewPlanned)) plan(table, horizon);
  std::size_t free_slots = table.free_slots();
  // Loads behind a blocked one may go first if their own victims are free.
  for (std::size_t i = 0; i < schedule_.size(); ++i) {
    Load const load = schedule_[i];
    ExpertIndex const expert = load.move.load;
    auto const victim = load.move.victim;
    if (!victim) {
      if (free_slots == 0) continue;
      --free_slots;  // spoken for by this load, even if it can't start
    }
    bool const wanted = table.absent(expert) && !table.prefetch_failed(expert);
    bool const room = !victim || (table.evictable(*victim) && horizon.next_use(*victim) > load.position);
    if (!wanted || !room) continue;
    schedule_.erase(schedule_.begin() + static_cast<std::ptrdiff_t>(i));
    return load.move;
  }
  return std::nullopt;
}

std::optional<ExpertIndex> Prefetcher::demand(ExpertIndex expert, SlotTable const& table, Horizon const& horizon) {
  if (stale_) return std::nullopt;
  auto const found =
      std::find_if(schedule_.begin(), schedule_.end(), [&](Load const& load) { return load.move.load == expert; });
  bool const has_room = table.free_slots() > 0;
  if (found != schedule_.end()) {
    auto const [move, position] = *found;
    schedule_.erase(found);
    if (!move.victim && has_room) return std::nullopt;
    bool const is_free = move.victim && table.evictable(*move.victim) && horizon.next_use(*move.victim) > position;
    if (is_free && !has_room) return move.victim;
  }
  stale_ = true;  // reality left the schedule
  return std::nullopt;
}

}  // namespace sida::inline v0
