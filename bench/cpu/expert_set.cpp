#include "bench/cpu/expert_set.hpp"

#include <bit>
#include <cstring>
#include <utility>

#include "sida/detail/try.hpp"

namespace sida::bench {
namespace {

/// SplitMix64: gigabytes of weights in seconds, which the standard library's engines don't give.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  /// Uniform in [-1, 1).
  float number() {
    state_ += 0x9E3779B97F4A7C15U;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return static_cast<float>(static_cast<std::int32_t>(z >> 32)) * 0x1p-31F;
  }

 private:
  std::uint64_t state_;
};

template <class T>
void fill(std::byte* to, std::size_t count, Random& random) {
  constexpr float kScale = 0.05F;
  for (std::size_t i = 0; i < count; ++i) {
    float const value = random.number() * kScale;
    T element{};
    if constexpr (std::is_same_v<T, float>) element = value;
    if constexpr (std::is_same_v<T, bf16>) element = to_bf16(value);
    if constexpr (std::is_same_v<T, fp16>) element = to_fp16(value);
    std::memcpy(to + i * sizeof element, &element, sizeof element);
  }
}

}  // namespace

Result<ExpertSet> ExpertSet::make(Dtype dtype, std::size_t count) {
  SIDA_TRY_ASSIGN(auto const layout,
                  ExpertLayout::of({.kind = FfnKind::relu, .dtype = dtype, .d_model = kModel, .d_ff = kHidden}));
  ExpertSet set(layout);
  std::size_t const stride = slot_bytes_for(layout.size_bytes);
  SIDA_TRY_ASSIGN(set.memory_, Buffer::allocate(host_memory(), count * stride, kRecordAlignment));
  Random random(1);
  for (std::size_t i = 0; i < count; ++i) {
    std::byte* const record = set.memory_.bytes().data() + i * stride;
    with_element(dtype,
                 [&](auto element) { fill<decltype(element)>(record, layout.size_bytes / sizeof element, random); });
    set.records_.push_back(record);
  }
  return set;
}

HostMemory& host_memory() {
  static HostMemory memory;
  return memory;
}

std::vector<float> random_numbers(std::size_t count, float scale, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> numbers(count);
  for (float& number : numbers) number = random.number() * scale;
  return numbers;
}

}  // namespace sida::bench
