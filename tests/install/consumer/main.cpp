// What an engine does first: its own experts behind a store, in less memory than they take.
#include <algorithm>
#include <array>
#include <memory>

#include <sida/core/memory.hpp>
#include <sida/store/expert_store.hpp>

namespace {

/// Two layers of three experts; every byte of a record is its expert's number.
class Engine final : public sida::ExpertSource {
 public:
  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return layers_; }
  std::size_t record_bytes(sida::ExpertId) const noexcept override { return 5000; }
  sida::Status read(sida::ExpertId id, std::span<std::byte> dst) const override {
    std::ranges::fill(dst.first(record_bytes(id)), std::byte(3 * id.layer + id.expert));
    return {};
  }

 private:
  std::array<std::uint32_t, 2> layers_ = {3, 3};
};

}  // namespace

int main() {
  sida::HostMemory memory;
  auto const source = std::make_shared<Engine const>();
  auto store = sida::ExpertStore::open(*source, sida::make_host_tier(source, memory, 2), {.budget_bytes = 2 * 8192});
  if (!store || (*store)->slots() != 2) return 1;
  for (std::uint32_t layer : {0U, 1U, 0U}) {
    auto const wave =
        (*store)->acquire(std::array{sida::ExpertId{layer, 0}, sida::ExpertId{layer, 2}}, sida::StreamRef::host());
    if (!wave || wave->experts()[1].data[4999] != std::byte(3 * layer + 2)) return 2;
  }
  return (*store)->stats().misses == 6 ? 0 : 3;
}
