#include "store/store_impl.hpp"

#include <algorithm>
#include <chrono>
#include <new>
#include <string>

#include "sida/detail/try.hpp"

namespace sida::inline v0 {
namespace {

using Clock = std::chrono::steady_clock;

Prefetcher::Rule rule_of(PolicyKind kind) {
  return kind == PolicyKind::next_use ? Prefetcher::Rule::planned : Prefetcher::Rule::eager;
}

/// Counts one for as long as it lives.
class Counted {
 public:
  explicit Counted(std::uint32_t& count) noexcept : count_(count) { ++count_; }
  Counted(Counted const&) = delete;
  Counted& operator=(Counted const&) = delete;
  ~Counted() { --count_; }

 private:
  std::uint32_t& count_;
};

/// A place in the queue of waiting acquires, for as long as it lives.
class Ticket {
 public:
  Ticket(std::deque<std::uint64_t>& queue, std::uint64_t number, std::condition_variable& changed)
      : queue_(queue), number_(number), changed_(changed) {
    queue_.push_back(number_);
  }
  Ticket(Ticket const&) = delete;
  Ticket& operator=(Ticket const&) = delete;
  ~Ticket() {
    std::erase(queue_, number_);
    changed_.notify_all();  // the next in line may go
  }
  bool is_first() const noexcept { return queue_.front() == number_; }

 private:
  std::deque<std::uint64_t>& queue_;
  std::uint64_t number_;
  std::condition_variable& changed_;
};

std::vector<ExpertIndex> first_indices(std::span<std::uint32_t const> experts_per_layer) {
  std::vector<ExpertIndex> first{0};
  for (std::uint32_t const experts : experts_per_layer) first.push_back(first.back() + experts);
  return first;
}

}  // namespace

ExpertStore::Impl::Impl(std::span<std::uint32_t const> layers, std::uint32_t slot_count, std::size_t bytes,
                        StoreOptions const& store_options)
    : experts_per_layer(layers.begin(), layers.end()),
      first_of_layer(first_indices(layers)),
      slots(slot_count),
      slot_bytes(bytes),
      options(store_options),
      horizon(first_of_layer.back()),
      prefetcher(rule_of(options.policy)) {
  table = make_table();
}

std::unique_ptr<SlotTable> ExpertStore::Impl::make_table() const {
  auto policy = make_policy(options.policy, {.experts_per_layer = experts_per_layer, .slots = slots});
  return std::make_unique<SlotTable>(first_of_layer.back(), slots, slot_bytes, std::move(policy));
}

ExpertId ExpertStore::Impl::id(ExpertIndex index) const {
  auto const after = std::upper_bound(first_of_layer.begin(), first_of_layer.end(), index);
  auto const layer = static_cast<std::uint32_t>(after - first_of_layer.begin() - 1);
  return {layer, index - first_of_layer[layer]};
}

void ExpertStore::Impl::on_filled(FillTicket ticket, Status status) {
  bool wake = false;
  {
    std::lock_guard const lock(mutex);
    bool const failed = !status;
    table->filled(ticket, std::move(status));
    if (failed) prefetcher.replan();
    pump();
    wake = should_wake();
  }
  if (wake) changed.notify_all();
}

bool ExpertStore::Impl::settled(std::span<ExpertIndex const> wave) const noexcept {
  return std::ranges::none_of(wave, [&](ExpertIndex e) { return table->state(e) == SlotTable::State::filling; });
}

bool ExpertStore::Impl::should_wake() const noexcept {
  return !waiting.empty() || table->filling() == 0 ||
         std::ranges::any_of(awaited, [&](auto const& wave) { return settled(wave); });
}

void ExpertStore::Impl::arrive(DemandEvent& event) {
  if (event.arrived_) {
    if (event.wave_ > 0) horizon.arrive(event.later_waves_, event.wave_ - 1);
    return;
  }
  bool const skips = horizon.has_before(event.position_.plan, event.position_.event);
  auto planned = horizon.arrive(event.position_.plan, event.position_.event);
  event.arrived_ = true;  // not before: a call that memory failed is repeated
  event.was_planned_ = planned.has_value();
  if (planned) {
    ++table->stats().planned_events;
    event.planned_ = std::move(*planned);
  }
  if (skips || event.planned_ != event.indices_) prefetcher.replan();
  if (event.indices_.size() <= slots) return;
  auto const waves = cut_events({&event.indices_, 1}, slots);
  event.later_waves_ = horizon.prepend({waves.begin() + 1, waves.end()});
  prefetcher.replan();
}

Status ExpertStore::Impl::lease(std::unique_lock<std::mutex>& lock, DemandEvent const& event,
                                std::span<ExpertIndex const> wave) {
  auto const self = std::this_thread::get_id();
  if (std::find(holders.begin(), holders.end(), self) != holders.end()) {
    return Error(Errc::would_deadlock, "this thread already holds a wave of this store");
  }
  holders.reserve(holders.size() + leasing + 1);
  awaited.reserve(leasing + 1);
  Counted const in_progress(leasing);
  SIDA_TRY(reserve(lock, event, wave));
  SIDA_TRY(await_fills(lock, wave));
  holders.push_back(self);
  return {};
}

Status ExpertStore::Impl::reserve(std::unique_lock<std::mutex>& lock, DemandEvent const& event,
                                  std::span<ExpertIndex const> wave) {
  Ticket const ticket(waiting, next_ticket++, changed);
  auto const my_turn = [&] { return cancelled || (ticket.is_first() && try_reserve(wave, event)); };
  if (!my_turn()) {
    auto const start = Clock::now();
    changed.wait(lock, my_turn);
    add_stall(start);
  }
  if (cancelled) return Error(Errc::cancelled, "the store was cancelled");
  return {};
}

void ExpertStore::Impl::add_stall(Clock::time_point start) {
  auto const waited = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start);
  table->stats().stall_ns += static_cast<std::uint64_t>(waited.count());
}

bool ExpertStore::Impl::try_reserve(std::span<ExpertIndex const> wave, DemandEvent const& event) {
  if (cancelled) return false;
  std::size_t missing = 0;
  for (ExpertIndex const expert : wave) {
    // A failed one is still pinned by those who wait for it; they let go soon.
    if (table->state(expert) == SlotTable::State::failed) return false;
    if (table->absent(expert)) ++missing;
  }
  for (ExpertIndex const expert : wave) table->pin(expert);  // now none of them counts as evictable
  if (missing > table->free_slots() && missing > table->free_slots() + table->count_evictable()) {
    for (ExpertIndex const expert : wave) table->unpin(expert);
    return false;
  }
  try {
    start_missing(wave, event);
  } catch (...) {
    unpin(wave);
    throw;
  }
  return true;
}

void ExpertStore::Impl::start_missing(std::span<ExpertIndex const> wave, DemandEvent const& event) {
  std::vector<ExpertIndex> missing;
  for (ExpertIndex const expert : wave) {
    if (table->absent(expert)) missing.push_back(expert);
    if (auto const ticket = table->filling_ahead(expert)) tier->promote(*ticket);
    if (!event.was_planned_ || !table->is_miss(expert)) continue;
    bool const named = std::binary_search(event.planned_.begin(), event.planned_.end(), expert);
    if (!named) ++table->stats().mispredicted_loads;
  }
  table->touch(wave);
  for (ExpertIndex const expert : missing) {
    auto victim = prefetcher.demand(expert, *table, horizon);
    if (table->free_slots() == 0) {
      if (!victim) victim = table->policy().choose_victim(table->evictable_experts(), horizon);
      table->evict(*victim);
    }
    load(expert, SlotTable::Purpose::demand);
  }
}

Status ExpertStore::Impl::await_fills(std::unique_lock<std::mutex>& lock, std::span<ExpertIndex const> wave) {
  if (!cancelled && !settled(wave)) {
    auto const start = Clock::now();
    awaited.push_back(wave);
    changed.wait(lock, [&] { return cancelled || settled(wave); });
    awaited.erase(std::ranges::find(awaited, wave.data(), [](auto const& other) { return other.data(); }));
    add_stall(start);
  }
  try {
    Status status = outcome(wave);
    if (!status) unpin(wave);
    return status;
  } catch (...) {  // no memory for the message
    unpin(wave);
    throw;
  }
}

Status ExpertStore::Impl::outcome(std::span<ExpertIndex const> wave) const {
  if (cancelled) return Error(Errc::cancelled, "the store was cancelled");
  for (ExpertIndex const expert : wave) {
    if (table->state(expert) == SlotTable::State::failed) return table->error(expert);
  }
  return {};
}

void ExpertStore::Impl::unpin(std::span<ExpertIndex const> wave) {
  for (ExpertIndex const expert : wave) table->unpin(expert);
  pump();
  changed.notify_all();
}

void ExpertStore::Impl::load(ExpertIndex expert, SlotTable::Purpose purpose) {
  FillRequest const request = table->assign(expert, id(expert), purpose);
  try {
    tier->submit(request);
  } catch (...) {
    table->filled(request.ticket, Status(Errc::out_of_memory, kNoMemory));
    throw;
  }
}

void ExpertStore::Impl::pump() noexcept try {
  // A waiting acquire comes first: prefetches must not take the slots that it waits for.
  while (!cancelled && waiting.empty() && table->ahead_in_flight() < options.prefetch_depth) {
    auto const move = prefetcher.next(*table, horizon);
    if (!move) return;
    if (move->victim) table->evict(*move->victim);
    load(move->load, move->demanded ? SlotTable::Purpose::later_wave : SlotTable::Purpose::prefetch);
  }
} catch (std::bad_alloc const&) {
  prefetcher.replan();  // what was on its schedule may not have started
}

}  // namespace sida::inline v0
