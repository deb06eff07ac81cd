#include "sida/policy/horizon.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "sida/policy/belady.hpp"

namespace sida::inline v0 {

void Horizon::make_room(Event const& event) {
  for (ExpertIndex const expert : event.experts) {
    auto& uses = uses_[expert];
    if (uses.size() == uses.capacity()) uses.reserve(2 * uses.size() + 2);
  }
}

void Horizon::add_uses(Event const& event) noexcept {
  for (ExpertIndex const expert : event.experts) {
    auto& uses = uses_[expert];
    uses.insert(std::upper_bound(uses.begin(), uses.end(), event.position), event.position);
  }
}

void Horizon::remove_uses(Event const& event) noexcept {
  for (ExpertIndex const expert : event.experts) {
    auto& uses = uses_[expert];
    uses.erase(std::lower_bound(uses.begin(), uses.end(), event.position));
  }
}

PlanId Horizon::append(std::vector<std::vector<ExpertIndex>> const& events, std::uint32_t slots) {
  PlanId const plan{next_plan_++};
  try {
    for (std::uint32_t number = 0; number < events.size(); ++number) {
      for (ExpertSet const part : cut_events({&events[number], 1}, slots)) {
        Event event{plan, number, next_position_++, {part.begin(), part.end()}, false};
        make_room(event);
        events_.push_back(std::move(event));
        add_uses(events_.back());
      }
    }
  } catch (std::bad_alloc const&) {
    drop(plan);
    throw;
  }
  return plan;
}

PlanId Horizon::prepend(std::vector<ExpertSet> const& events) {
  PlanId const plan{next_plan_++};
  std::uint64_t position = events_.empty() ? next_position_ : events_.front().position;
  try {
    for (auto number = static_cast<std::uint32_t>(events.size()); number-- > 0;) {
      Event event{plan, number, --position, {events[number].begin(), events[number].end()}, true};
      make_room(event);
      events_.push_front(std::move(event));
      add_uses(events_.front());
    }
  } catch (std::bad_alloc const&) {
    drop(plan);
    throw;
  }
  return plan;
}

std::optional<std::vector<ExpertIndex>> Horizon::arrive(PlanId plan, std::uint32_t event) {
  if (plan == PlanId::none) return std::nullopt;
  bool found = false;
  std::vector<ExpertIndex> planned;
  auto last = events_.begin();  // of what leaves: a plan's events stand in order
  for (; last != events_.end() && (last->plan != plan || last->event <= event); ++last) {
    if (last->plan != plan || last->event != event) continue;
    found = true;
    planned.insert(planned.end(), last->experts.begin(), last->experts.end());
  }
  auto left = last - events_.begin();
  for (auto it = events_.begin(); left > 0; --left) {
    if (it->plan != plan) {
      ++it;
      continue;
    }
    remove_uses(*it);
    it = events_.erase(it);
  }
  if (!found) return std::nullopt;
  return planned;
}

bool Horizon::has_before(PlanId plan, std::uint32_t event) const noexcept {
  auto const first = std::ranges::find(events_, plan, &Event::plan);  // a plan's events stand in order
  return first != events_.end() && first->event < event;
}

bool Horizon::drop(PlanId plan) {
  return std::erase_if(events_, [&](Event const& event) {
           if (event.plan != plan) return false;
           remove_uses(event);
           return true;
         }) > 0;
}

void Horizon::clear() {
  events_.clear();
  for (auto& uses : uses_) uses.clear();
}

}  // namespace sida::inline v0
