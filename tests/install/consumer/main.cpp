// Layout, memory and a policy: what an engine touches first.
#include <array>

#include <sida/core/expert_layout.hpp>
#include <sida/core/memory.hpp>
#include <sida/policy/eviction_policy.hpp>

int main() {
  auto const layout = sida::ExpertLayout::of({.kind = sida::FfnKind::swiglu, .d_model = 64, .d_ff = 128});
  if (!layout) return 1;
  sida::HostMemory memory;
  auto buffer = sida::Buffer::allocate(memory, layout->size_bytes, sida::kRecordAlignment);
  if (!buffer || buffer->bytes().size() != 3 * layout->matrix_bytes()) return 2;
  buffer->bytes()[0] = std::byte{1};

  auto const policy = sida::make_policy(sida::PolicyKind::lru, {.experts_per_layer = {4}, .slots = 2});
  for (sida::ExpertIndex expert : {3U, 1U}) {
    policy->touch(std::array{expert});
    policy->insert(expert);
  }
  auto const victim = policy->choose_victim(std::array<sida::ExpertIndex, 2>{1, 3}, sida::Horizon(4));
  return victim == 3 ? 0 : 3;
}
