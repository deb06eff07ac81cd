#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sida/c.h"
#include "sida/core/memory.hpp"
#include "sida/detail/try.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::inline v0 {
namespace {

static_assert(SIDA_DEVICE == static_cast<int>(Errc::device), "sida_code's numbers are Errc's");

constexpr std::size_t kMessageBytes = 256;  // of a callback's message

sida_code tell(sida_message* why, sida_code code, std::string_view text) noexcept {
  if (why != nullptr && why->text != nullptr && why->capacity_bytes > 0) {
    std::size_t const length = std::min(text.size(), why->capacity_bytes - 1);
    std::memcpy(why->text, text.data(), length);
    why->text[length] = '\0';
  }
  return code;
}

/// Runs a function that returns a Status; nothing that it throws leaves.
template <class F>
sida_code guarded(sida_message* why, F const& body) noexcept {
  try {
    Status const status = body();
    return tell(why, static_cast<sida_code>(status.code()), status.message());
  } catch (std::bad_alloc const&) {
    return tell(why, SIDA_OUT_OF_MEMORY, "out of memory");
  } catch (std::exception const& error) {
    return tell(why, SIDA_INTERNAL, error.what());
  } catch (...) {
    return tell(why, SIDA_INTERNAL, "an unknown exception");
  }
}

Status null_argument(char const* name) { return {Errc::invalid_argument, std::string(name) + " is NULL"}; }

/// The caller's struct as this version knows it.
template <class T>
Result<T> read_sized(T const* given, char const* name) {
  if (given == nullptr) return null_argument(name);
  std::size_t const size = given->struct_size;
  if (size < sizeof(T)) {  // there is one version so far, so nothing smaller was ever valid
    return Error(Errc::invalid_argument, std::string(name) + ": a struct_size of " + std::to_string(size) +
                                             " bytes where " + std::to_string(sizeof(T)) + " are needed");
  }
  auto const* const bytes = reinterpret_cast<unsigned char const*>(given);
  if (std::any_of(bytes + sizeof(T), bytes + size, [](unsigned char byte) { return byte != 0; })) {
    return Error(Errc::unsupported, std::string(name) + " uses members that this version does not know");
  }
  return *given;
}

class CallbackSource final : public ExpertSource {
 public:
  explicit CallbackSource(sida_source const& source)
      : experts_(source.experts_per_layer, source.experts_per_layer + source.layers),
        record_bytes_(source.record_bytes, source.record_bytes + source.layers),
        read_(source.read),
        context_(source.context) {}

  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return experts_; }
  std::size_t record_bytes(ExpertId id) const noexcept override { return record_bytes_[id.layer]; }
  Status read(ExpertId id, std::span<std::byte> dst) const override {
    char text[kMessageBytes] = "";
    sida_message why{text, sizeof text};
    // What the callback throws is caught by the tier that calls this.
    sida_code const code = read_(context_, {id.layer, id.expert}, dst.data(), dst.size(), &why);
    if (code == SIDA_OK) return {};
    bool const known = code > SIDA_OK && code <= SIDA_DEVICE;
    text[kMessageBytes - 1] = '\0';
    return {known ? static_cast<Errc>(code) : Errc::io,
            to_string(id) + ": the source failed with code " + std::to_string(code) +
                (text[0] == '\0' ? std::string() : ": " + std::string(text))};
  }

 private:
  std::vector<std::uint32_t> experts_;
  std::vector<std::uint64_t> record_bytes_;
  sida_read_function read_;
  void* context_;
};

class CallbackMemory final : public MemoryResource {
 public:
  explicit CallbackMemory(sida_store_options const& options) : options_(options) {}
  Result<void*> allocate(std::size_t bytes, std::size_t alignment) override {
    void* const data = options_.allocate(options_.memory_context, bytes, alignment);
    if (data == nullptr) {
      return Error(Errc::out_of_memory, "the caller's allocator: " + std::to_string(bytes) + " bytes");
    }
    return data;
  }
  void deallocate(void* data, std::size_t bytes, std::size_t alignment) noexcept override {
    options_.deallocate(options_.memory_context, data, bytes, alignment);
  }
  Tier space() const noexcept override { return Tier::host; }

 private:
  sida_store_options options_;
};

Result<std::vector<ExpertId>> ids(sida_expert_id const* experts, std::size_t count) {
  if (experts == nullptr && count > 0) return null_argument("experts");
  std::vector<ExpertId> result;
  result.reserve(count);
  for (std::size_t i = 0; i < count; ++i) result.push_back({experts[i].layer, experts[i].expert});
  return result;
}

PlanPosition position_of(sida_plan_position const* position) {
  return position == nullptr ? PlanPosition{} : PlanPosition{static_cast<PlanId>(position->plan), position->event};
}

}  // namespace
}  // namespace sida::inline v0

struct sida_store {
  std::unique_ptr<sida::MemoryResource> memory;  // outlives the tier inside `store`
  std::unique_ptr<sida::ExpertStore> store;
  mutable std::atomic<std::size_t> uses{0};  // live waves and events, and calls under way
};

namespace {

/// Keeps a store from being closed.
class Use {
 public:
  explicit Use(sida_store const* store) noexcept : store_(store) { store_->uses.fetch_add(1); }
  Use(Use&& other) noexcept : store_(std::exchange(other.store_, nullptr)) {}
  Use& operator=(Use&&) = delete;
  ~Use() {
    if (store_ != nullptr) store_->uses.fetch_sub(1);
  }
  sida_store const* get() const noexcept { return store_; }

 private:
  sida_store const* store_;
};

}  // namespace

// The use is the first member: it goes last.
struct sida_wave {
  Use use;
  sida::Wave wave;
};

struct sida_event {
  Use use;
  sida::DemandEvent event;
};

namespace sida::inline v0 {
namespace {

constexpr PolicyKind kPolicies[] = {PolicyKind::lfru, PolicyKind::fifo, PolicyKind::lru,
                                    PolicyKind::lfu,  PolicyKind::lfru, PolicyKind::next_use};

Status check(sida_source const& source) {
  if (source.read == nullptr) return null_argument("source->read");
  if (source.layers > 0 && source.experts_per_layer == nullptr) return null_argument("source->experts_per_layer");
  if (source.layers > 0 && source.record_bytes == nullptr) return null_argument("source->record_bytes");
  return {};
}

Status check(sida_store_options const& options) {
  if (options.policy < 0 || options.policy >= static_cast<sida_policy>(std::size(kPolicies))) {
    return {Errc::invalid_argument, "there is no policy " + std::to_string(options.policy)};
  }
  if ((options.allocate == nullptr) != (options.deallocate == nullptr)) {
    return {Errc::invalid_argument, "allocate and deallocate are given together or not at all"};
  }
  return {};
}

Result<std::unique_ptr<sida_store>> open(sida_source const* given_source, sida_store_options const* given_options) {
  SIDA_TRY_ASSIGN(auto const source, read_sized(given_source, "source"));
  SIDA_TRY_ASSIGN(auto const options, read_sized(given_options, "options"));
  SIDA_TRY(check(source));
  SIDA_TRY(check(options));
  auto opened = std::make_unique<sida_store>();
  if (options.allocate == nullptr) {
    opened->memory = std::make_unique<HostMemory>();
  } else {
    opened->memory = std::make_unique<CallbackMemory>(options);
  }
  StoreOptions store_options{.budget_bytes = options.budget_bytes, .policy = kPolicies[options.policy]};
  if (options.prefetch_depth != 0) store_options.prefetch_depth = options.prefetch_depth;
  auto const experts = std::make_shared<CallbackSource const>(source);
  unsigned const io_threads = options.io_threads == 0 ? 4 : options.io_threads;
  SIDA_TRY_ASSIGN(opened->store,
                  ExpertStore::open(*experts, make_host_tier(experts, *opened->memory, io_threads), store_options));
  return opened;
}

Result<std::unique_ptr<sida_event>> begin(Use use, sida_expert_id const* experts, std::size_t count,
                                          sida_plan_position const* position) {
  SIDA_TRY_ASSIGN(auto const wanted, ids(experts, count));
  SIDA_TRY_ASSIGN(auto event, use.get()->store->begin_event(wanted, position_of(position)));
  return std::make_unique<sida_event>(sida_event{std::move(use), std::move(event)});
}

}  // namespace
}  // namespace sida::inline v0

using sida::guarded;
using sida::null_argument;
using sida::Status;

extern "C" {

char const* sida_version(void) { return SIDA_VERSION; }
uint32_t sida_abi_version(void) { return SIDA_ABI_VERSION; }

char const* sida_code_name(sida_code code) {
  if (code == SIDA_INTERNAL) return "internal";
  if (code < SIDA_OK || code > SIDA_INTERNAL) return "unknown";
  return to_string(static_cast<sida::Errc>(code)).data();  // a literal
}

sida_code sida_store_open(sida_source const* source, sida_store_options const* options, sida_store** store,
                          sida_message* why) {
  if (store != nullptr) *store = nullptr;
  return guarded(why, [&]() -> Status {
    if (store == nullptr) return null_argument("store");
    SIDA_TRY_ASSIGN(auto opened, sida::open(source, options));
    *store = opened.release();
    return {};
  });
}

sida_code sida_store_close(sida_store* store, sida_message* why) {
  return guarded(why, [&]() -> Status {
    if (store == nullptr) return {};
    if (auto const uses = store->uses.load(); uses != 0) {
      return {sida::Errc::invalid_argument,
              "the store is in use by " + std::to_string(uses) + " waves, events or calls"};
    }
    delete store;
    return {};
  });
}

uint32_t sida_store_slots(sida_store const* store) {
  if (store == nullptr) return 0;
  Use const use(store);
  return store->store->slots();
}

uint64_t sida_store_slot_bytes(sida_store const* store) {
  if (store == nullptr) return 0;
  Use const use(store);
  return store->store->slot_bytes();
}

sida_code sida_plan_submit(sida_store* store, sida_expert_set const* events, size_t count, sida_plan* plan,
                           sida_message* why) {
  if (plan != nullptr) *plan = SIDA_NO_PLAN;
  return guarded(why, [&]() -> Status {
    if (store == nullptr) return null_argument("store");
    if (events == nullptr && count > 0) return null_argument("events");
    Use const use(store);
    std::vector<std::vector<sida::ExpertId>> sets(count);
    for (size_t i = 0; i < count; ++i) {
      SIDA_TRY_ASSIGN(sets[i], sida::ids(events[i].experts, events[i].count));
    }
    SIDA_TRY_ASSIGN(auto const id, store->store->submit_plan(sets));
    if (plan != nullptr) *plan = static_cast<sida_plan>(id);
    return {};
  });
}

sida_code sida_plan_drop(sida_store* store, sida_plan plan) {
  return guarded(nullptr, [&]() -> Status {
    if (store == nullptr) return null_argument("store");
    Use const use(store);
    store->store->drop_plan(static_cast<sida::PlanId>(plan));
    return {};
  });
}

sida_code sida_wave_acquire(sida_store* store, sida_expert_id const* experts, size_t count,
                            sida_plan_position const* position, sida_wave** wave, sida_message* why) {
  if (wave != nullptr) *wave = nullptr;
  return guarded(why, [&]() -> Status {
    if (store == nullptr) return null_argument("store");
    if (wave == nullptr) return null_argument("wave");
    Use use(store);
    SIDA_TRY_ASSIGN(auto const wanted, sida::ids(experts, count));
    SIDA_TRY_ASSIGN(auto leased, store->store->acquire(wanted, sida::StreamRef::host(), sida::position_of(position)));
    *wave = new sida_wave{std::move(use), std::move(leased)};
    return {};
  });
}

size_t sida_wave_size(sida_wave const* wave) { return wave == nullptr ? 0 : wave->wave.size(); }

sida_expert_id sida_wave_expert(sida_wave const* wave, size_t index) {
  if (index >= sida_wave_size(wave)) return {UINT32_MAX, UINT32_MAX};
  auto const id = wave->wave.experts()[index].id;
  return {id.layer, id.expert};
}

void const* sida_wave_data(sida_wave const* wave, size_t index) {
  return index >= sida_wave_size(wave) ? nullptr : wave->wave.experts()[index].data;
}

void sida_wave_release(sida_wave* wave) { delete wave; }

sida_code sida_event_begin(sida_store* store, sida_expert_id const* experts, size_t count,
                           sida_plan_position const* position, sida_event** event, sida_message* why) {
  if (event != nullptr) *event = nullptr;
  return guarded(why, [&]() -> Status {
    if (store == nullptr) return null_argument("store");
    if (event == nullptr) return null_argument("event");
    SIDA_TRY_ASSIGN(auto begun, sida::begin(Use(store), experts, count, position));
    *event = begun.release();
    return {};
  });
}

sida_code sida_event_next_wave(sida_event* event, sida_wave** wave, sida_message* why) {
  if (wave != nullptr) *wave = nullptr;
  return guarded(why, [&]() -> Status {
    if (event == nullptr) return null_argument("event");
    if (wave == nullptr) return null_argument("wave");
    if (event->event.done()) return {};
    // Allocated first: what was leased and then lost would never be served.
    std::unique_ptr<sida_wave> next(new sida_wave{Use(event->use.get()), {}});
    SIDA_TRY_ASSIGN(next->wave, event->event.next_wave(sida::StreamRef::host()));
    *wave = next.release();
    return {};
  });
}

void sida_event_end(sida_event* event) { delete event; }

void sida_store_cancel(sida_store* store) {
  if (store == nullptr) return;
  Use const use(store);  // who is woken may close the store
  store->store->cancel();
}

sida_code sida_store_reset(sida_store* store, sida_message* why) {
  return guarded(why, [&]() -> Status {
    if (store == nullptr) return null_argument("store");
    Use const use(store);
    return store->store->reset();
  });
}

sida_code sida_store_stats(sida_store const* store, sida_stats* stats, sida_message* why) {
  return guarded(why, [&]() -> Status {
    if (store == nullptr) return null_argument("store");
    if (stats == nullptr) return null_argument("stats");
    std::size_t const size = stats->struct_size;
    if (size < offsetof(sida_stats, hits)) {
      return {sida::Errc::invalid_argument, "stats: a struct_size of " + std::to_string(size) + " bytes"};
    }
    Use const use(store);
    auto const s = store->store->stats();
    sida_stats const known = {stats->struct_size,
                              0,
                              s.events,
                              s.hits,
                              s.late_hits,
                              s.misses,
                              s.loads,
                              s.bytes_loaded,
                              s.failed_loads,
                              s.evictions,
                              s.prefetches,
                              s.prefetches_used,
                              s.prefetches_wasted,
                              s.planned_events,
                              s.mispredicted_loads,
                              s.stall_ns,
                              s.peak_resident_bytes};
    auto* const bytes = reinterpret_cast<unsigned char*>(stats);
    std::fill(bytes, bytes + size, static_cast<unsigned char>(0));
    std::memcpy(bytes, &known, std::min(size, sizeof known));
    return {};
  });
}

}  // extern "C"
