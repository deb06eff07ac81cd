#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace sida::cli {

/// A bar on stderr, redrawn a few times a second and gone when this is destroyed. Does nothing unless `shown`.
/// Not thread-safe.
class Progress {
 public:
  /// `label` says what is being done ("packing"), `unit` what is counted ("sequences", "bytes").
  Progress(bool shown, std::string label, std::string unit);
  ~Progress();
  Progress(Progress const&) = delete;
  Progress& operator=(Progress const&) = delete;

  /// `total` 0: unknown.
  void update(std::uint64_t done, std::uint64_t total);

 private:
  bool shown_;
  bool drawn_ = false;
  std::string label_;
  std::string unit_;
  std::chrono::steady_clock::time_point next_draw_{};
};

}  // namespace sida::cli
