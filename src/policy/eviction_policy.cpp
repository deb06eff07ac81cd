#include "sida/policy/eviction_policy.hpp"

#include <array>
#include <utility>

#include "policy/policies.hpp"

namespace sida::inline v0 {
namespace {

constexpr std::array<std::pair<PolicyKind, std::string_view>, 5> kNames{{
    {PolicyKind::fifo, "fifo"},
    {PolicyKind::lru, "lru"},
    {PolicyKind::lfu, "lfu"},
    {PolicyKind::lfru, "lfru"},
    {PolicyKind::next_use, "next-use"},
}};

}  // namespace

std::string_view to_string(PolicyKind kind) noexcept {
  for (auto const& [candidate, name] : kNames) {
    if (candidate == kind) return name;
  }
  return "unknown";
}

std::optional<PolicyKind> parse_policy(std::string_view name) noexcept {
  for (auto const& [kind, candidate] : kNames) {
    if (candidate == name) return kind;
  }
  return std::nullopt;
}

std::unique_ptr<EvictionPolicy> make_policy(PolicyKind kind, PolicyOptions const& options) {
  switch (kind) {
    case PolicyKind::fifo: return make_fifo(options);
    case PolicyKind::lru: return make_lru(options);
    case PolicyKind::lfu: return make_lfu(options);
    case PolicyKind::lfru: return make_lfru(options);
    case PolicyKind::next_use: return make_next_use(options);
  }
  return nullptr;
}

}  // namespace sida::inline v0
