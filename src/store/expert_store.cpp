#include "sida/store/expert_store.hpp"

#include <algorithm>
#include <cassert>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "sida/core/expert_layout.hpp"
#include "sida/detail/try.hpp"
#include "store/store_impl.hpp"

namespace sida::inline v0 {

// ---- Wave

Wave::Wave(Wave&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)),
      experts_(std::move(other.experts_)),
      last_reader_(other.last_reader_),
      holder_(other.holder_) {
  other.experts_.clear();
}

Wave& Wave::operator=(Wave&& other) noexcept {
  if (this == &other) return *this;
  release();
  store_ = std::exchange(other.store_, nullptr);
  experts_ = std::move(other.experts_);
  other.experts_.clear();
  last_reader_ = other.last_reader_;
  holder_ = other.holder_;
  return *this;
}

Wave::~Wave() { release(); }

void Wave::release() noexcept {
  if (store_ == nullptr) return;
  auto& impl = *std::exchange(store_, nullptr)->impl_;
  impl.tier->release(experts_, last_reader_);
  {
    std::lock_guard const lock(impl.mutex);
    for (LeasedExpert const& expert : experts_) impl.table->unpin(impl.index(expert.id));
    impl.holders.erase(std::find(impl.holders.begin(), impl.holders.end(), holder_));
    impl.pump();
  }
  experts_.clear();
  impl.changed.notify_all();
}

// ---- DemandEvent

DemandEvent::DemandEvent(DemandEvent&& other) noexcept { *this = std::move(other); }

DemandEvent& DemandEvent::operator=(DemandEvent&& other) noexcept {
  if (this == &other) return *this;
  forget_later_waves();
  store_ = std::exchange(other.store_, nullptr);
  experts_ = std::move(other.experts_);
  indices_ = std::move(other.indices_);
  next_ = std::exchange(other.next_, 0);
  wave_ = other.wave_;
  position_ = other.position_;
  arrived_ = other.arrived_;
  was_planned_ = other.was_planned_;
  planned_ = std::move(other.planned_);
  later_waves_ = std::exchange(other.later_waves_, PlanId::none);
  other.experts_.clear();
  return *this;
}

DemandEvent::~DemandEvent() { forget_later_waves(); }

void DemandEvent::forget_later_waves() noexcept {
  if (store_ != nullptr && later_waves_ != PlanId::none) store_->drop_plan(later_waves_);
}

std::span<ExpertId const> DemandEvent::upcoming() const noexcept {
  if (done()) return {};
  std::size_t const count = std::min<std::size_t>(store_->impl_->slots, experts_.size() - next_);
  return std::span(experts_).subspan(next_, count);
}

Result<Wave> DemandEvent::next_wave(StreamRef reader) {
  if (done()) return Error(Errc::invalid_argument, "the event has no further wave");
  return catching_no_memory([&] { return lease_next(reader); });
}

Result<Wave> DemandEvent::lease_next(StreamRef reader) {
  auto& impl = *store_->impl_;
  auto const ids = upcoming();
  auto const wave_indices = std::span<ExpertIndex const>(indices_).subspan(next_, ids.size());

  Wave wave;
  wave.experts_.reserve(ids.size());
  {
    std::unique_lock lock(impl.mutex);
    impl.arrive(*this);
    SIDA_TRY(impl.lease(lock, *this, wave_indices));
    for (std::size_t i = 0; i < ids.size(); ++i) {
      SlotId const slot = impl.table->slot(wave_indices[i]);
      wave.experts_.push_back({ids[i], slot, impl.tier->slot_data(slot)});
    }
    wave.store_ = store_;  // from here on the wave's destructor gives everything back
    wave.last_reader_ = reader;
    wave.holder_ = std::this_thread::get_id();
    impl.pump();
  }
  SIDA_TRY(impl.tier->order_reader(wave.experts_, reader));
  next_ += ids.size();
  ++wave_;
  return wave;
}

// ---- ExpertStore

ExpertStore::ExpertStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ExpertStore::~ExpertStore() {
  {
    std::lock_guard const lock(impl_->mutex);
    assert(impl_->holders.empty() && impl_->leasing == 0 && "a wave or an acquire outlives its store");
    impl_->cancelled = true;
  }
  impl_->tier->close();
}

namespace {

Error no_such(ExpertId id) { return {Errc::invalid_argument, to_string(id) + ": there is no such expert"}; }

/// Experts of all layers, and the slot that holds the largest of them.
struct SourceSize {
  std::uint32_t experts = 0;
  std::size_t slot_bytes = 0;
};

Result<SourceSize> measure(ExpertSource const& source) {
  SourceSize size;
  std::uint64_t experts = 0;
  auto const layers = source.experts_per_layer();
  for (std::uint32_t layer = 0; layer < layers.size(); ++layer) {
    experts += layers[layer];
    for (std::uint32_t expert = 0; expert < layers[layer]; ++expert) {
      std::size_t const bytes = source.record_bytes({layer, expert});
      if (bytes == 0 || bytes > std::numeric_limits<std::size_t>::max() / 4) {
        return Error(Errc::invalid_argument,
                     to_string(ExpertId{layer, expert}) + ": a record of " + std::to_string(bytes) + " bytes");
      }
      size.slot_bytes = std::max(size.slot_bytes, slot_bytes_for(bytes));
    }
  }
  if (experts == 0) return Error(Errc::invalid_argument, "the source has no experts");
  if (experts >= std::numeric_limits<ExpertIndex>::max()) {
    return Error(Errc::invalid_argument, "the source has " + std::to_string(experts) + " experts, too many to number");
  }
  size.experts = static_cast<std::uint32_t>(experts);
  return size;
}

}  // namespace

Result<std::unique_ptr<ExpertStore>> ExpertStore::open(ExpertSource const& source, std::unique_ptr<FastTier> tier,
                                                       StoreOptions const& options) {
  SIDA_TRY_ASSIGN(auto const size, measure(source));
  auto const affordable = static_cast<std::uint64_t>(options.budget_bytes / size.slot_bytes);
  if (affordable == 0) {
    return Error(Errc::over_budget, "a budget of " + std::to_string(options.budget_bytes) +
                                        " bytes holds no expert: one takes " + std::to_string(size.slot_bytes) +
                                        " bytes");
  }
  auto const slots = static_cast<std::uint32_t>(std::min<std::uint64_t>(affordable, size.experts));
  auto impl = std::make_unique<Impl>(source.experts_per_layer(), slots, size.slot_bytes, options);
  SIDA_TRY(tier->open(slots, size.slot_bytes, *impl));
  impl->tier = std::move(tier);
  return std::unique_ptr<ExpertStore>(new ExpertStore(std::move(impl)));
}

Result<PlanId> ExpertStore::submit_plan(std::span<std::vector<ExpertId> const> events) {
  return catching_no_memory([&]() -> Result<PlanId> {
    std::vector<std::vector<ExpertIndex>> sets(events.size());
    for (std::size_t i = 0; i < events.size(); ++i) {
      for (ExpertId const id : events[i]) {
        if (!impl_->has(id)) return no_such(id);
        sets[i].push_back(impl_->index(id));
      }
      std::sort(sets[i].begin(), sets[i].end());
      sets[i].erase(std::unique(sets[i].begin(), sets[i].end()), sets[i].end());
    }
    std::lock_guard const lock(impl_->mutex);
    PlanId const plan = impl_->horizon.append(sets, impl_->slots);
    impl_->prefetcher.replan();
    impl_->pump();
    return plan;
  });
}

void ExpertStore::drop_plan(PlanId plan) noexcept {
  std::lock_guard const lock(impl_->mutex);
  if (!impl_->horizon.drop(plan)) return;
  impl_->prefetcher.replan();
  impl_->pump();  // what it held up may start
}

Result<DemandEvent> ExpertStore::begin_event(std::span<ExpertId const> experts, PlanPosition position) {
  return catching_no_memory([&]() -> Result<DemandEvent> {
    DemandEvent event;
    event.store_ = this;
    event.position_ = position;
    event.experts_.assign(experts.begin(), experts.end());
    std::sort(event.experts_.begin(), event.experts_.end());
    event.indices_.reserve(experts.size());
    for (ExpertId const id : event.experts_) {
      if (!impl_->has(id)) return no_such(id);
      ExpertIndex const index = impl_->index(id);
      if (!event.indices_.empty() && event.indices_.back() == index) {
        return Error(Errc::invalid_argument, to_string(id) + ": demanded twice in one event");
      }
      event.indices_.push_back(index);
    }
    if (event.indices_.empty()) {  // no wave will tell the horizon
      std::lock_guard const lock(impl_->mutex);
      impl_->arrive(event);
    }
    return event;
  });
}

Result<Wave> ExpertStore::acquire(std::span<ExpertId const> experts, StreamRef reader, PlanPosition position) {
  if (experts.size() > impl_->slots) {
    return Error(Errc::over_budget, std::to_string(experts.size()) + " experts do not fit " +
                                        std::to_string(impl_->slots) + " slots at once");
  }
  SIDA_TRY_ASSIGN(auto event, begin_event(experts, position));
  if (event.done()) return Wave();
  return event.next_wave(reader);
}

void ExpertStore::cancel() noexcept {
  {
    std::lock_guard const lock(impl_->mutex);
    impl_->cancelled = true;
  }
  impl_->changed.notify_all();
}

Status ExpertStore::reset() {
  return catching_no_memory([&]() -> Status {
    std::unique_lock lock(impl_->mutex);
    for (;;) {
      // Asked again after each wait: an acquire may have begun meanwhile.
      if (!impl_->holders.empty() || impl_->leasing > 0) {
        return Error(Errc::invalid_argument, "reset while a wave is held or an acquire is under way");
      }
      impl_->horizon.clear();
      impl_->prefetcher.replan();
      if (impl_->table->filling() == 0) break;
      impl_->changed.wait(lock, [&] { return impl_->table->filling() == 0; });
    }
    impl_->table = impl_->make_table();
    return {};
  });
}

std::uint32_t ExpertStore::slots() const noexcept { return impl_->slots; }
std::size_t ExpertStore::slot_bytes() const noexcept { return impl_->slot_bytes; }
std::uint32_t ExpertStore::expert_count() const noexcept { return impl_->first_of_layer.back(); }
Tier ExpertStore::space() const noexcept { return impl_->tier->space(); }

StoreStats ExpertStore::stats() const {
  std::lock_guard const lock(impl_->mutex);
  return impl_->table->stats();
}

}  // namespace sida::inline v0
