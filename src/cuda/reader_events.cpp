#include "cuda/reader_events.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "sida/detail/try.hpp"

namespace sida::inline v0::cuda {

Status ReaderEvents::reserve(std::size_t marks) {
  while (readers_.size() < marks) SIDA_TRY(create());
  return {};
}

Status ReaderEvents::create() {
  SIDA_TRY_ASSIGN(Event event, Event::create());
  if (free_.capacity() <= readers_.size()) free_.reserve(2 * readers_.size() + 1);
  readers_.push_back({std::move(event), 0, 0});
  free_.push_back(static_cast<std::uint32_t>(readers_.size() - 1));
  return {};
}

ReaderEvents::Mark ReaderEvents::mark(cudaStream_t stream) noexcept try {
  unsigned long long id = 0;
  bool const is_known = static_cast<bool>(check(cudaStreamGetId(stream, &id), "cudaStreamGetId"));
  if (is_known && free_.empty()) static_cast<void>(create());
  if (is_known && !free_.empty()) {
    std::uint32_t const number = free_.back();
    free_.pop_back();  // for good where it cannot be recorded: it is of another device, say
    if (readers_[number].event.record(stream)) {
      readers_[number].stream = id;
      readers_[number].slots = 0;
      return {number};
    }
  }
  static_cast<void>(cudaStreamSynchronize(stream));
  return {};
} catch (std::exception const&) {  // no memory
  static_cast<void>(cudaStreamSynchronize(stream));
  return {};
}

void ReaderEvents::add(List& readers, Mark mark) noexcept try {
  if (mark.event == Mark::kNone) return;
  Reader& reader = readers_[mark.event];
  std::erase_if(readers, [&](std::uint32_t number) {
    bool const covered = readers_[number].stream == reader.stream;
    if (covered) drop(number);
    return covered;
  });
  readers.push_back(mark.event);
  ++reader.slots;
} catch (std::exception const&) {  // no memory for the list
  static_cast<void>(readers_[mark.event].event.synchronize());
}

Status ReaderEvents::hold_back(List const& readers, cudaStream_t stream) const {
  for (std::uint32_t const number : readers) SIDA_TRY(readers_[number].event.hold_back(stream));
  return {};
}

void ReaderEvents::forget(List& readers) noexcept {
  for (std::uint32_t const number : readers) drop(number);
  readers.clear();
}

void ReaderEvents::wait_for_all() noexcept {
  for (Reader const& reader : readers_) {
    if (reader.slots > 0) static_cast<void>(reader.event.synchronize());
  }
}

void ReaderEvents::drop(std::uint32_t event) noexcept {
  if (--readers_[event].slots == 0) free_.push_back(event);
}

}  // namespace sida::inline v0::cuda
