#include "sida/core/result.hpp"

namespace sida::inline v0 {

std::string_view to_string(Errc code) noexcept {
  switch (code) {
    case Errc::ok: return "ok";
    case Errc::invalid_argument: return "invalid_argument";
    case Errc::not_found: return "not_found";
    case Errc::io: return "io";
    case Errc::corrupt: return "corrupt";
    case Errc::unsupported: return "unsupported";
    case Errc::out_of_memory: return "out_of_memory";
    case Errc::over_budget: return "over_budget";
    case Errc::would_deadlock: return "would_deadlock";
    case Errc::cancelled: return "cancelled";
    case Errc::device: return "device";
  }
  return "unknown";
}

}  // namespace sida::inline v0
