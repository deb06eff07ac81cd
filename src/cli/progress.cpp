#include "cli/progress.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "cli/report.hpp"

namespace sida::cli {
namespace {

constexpr std::chrono::milliseconds kRedraw(100);
constexpr std::size_t kBarWidth = 30;

}  // namespace

Progress::Progress(bool shown, std::string label, std::string unit)
    : shown_(shown), label_(std::move(label)), unit_(std::move(unit)) {}

Progress::~Progress() {
  if (drawn_) std::fputs("\r\033[K", stderr);
}

void Progress::update(std::uint64_t done, std::uint64_t total) {
  if (!shown_) return;
  auto const now = std::chrono::steady_clock::now();
  if (now < next_draw_ && done != total) return;
  next_draw_ = now + kRedraw;
  std::string line = "\r" + label_ + " ";
  auto const amount = [&](std::uint64_t n) { return unit_ == "bytes" ? format_bytes(n) : std::to_string(n); };
  if (total > 0) {
    std::size_t const filled = static_cast<std::size_t>(static_cast<double>(std::min(done, total)) /
                                                        static_cast<double>(total) * static_cast<double>(kBarWidth));
    line += "[" + std::string(filled, '#') + std::string(kBarWidth - filled, ' ') + "] " + amount(done) + " of " +
            amount(total);
  } else {
    line += amount(done);
  }
  if (unit_ != "bytes") line += " " + unit_;
  line += "\033[K";
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  drawn_ = true;
}

}  // namespace sida::cli
