#include "cli/synth_tensors.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "cli/synth_random.hpp"

namespace sida::cli {
namespace {

constexpr float kAttentionGain = 0.45F;
constexpr float kFfnGain = 0.5F;
constexpr float kRouterNorm = 3.5F;
constexpr float kDeepestSpread = 0.11F;  // of the logarithm of the norms of router rows, in the last MoE layer
constexpr float kPositionBias = 0.3F;
constexpr float kHeadBias = 0.1F;
constexpr float kReferenceDepth = 12;

template <class Store>
void fill_row(SynthTensor const& tensor, std::uint64_t row, Store const& store) noexcept {
  std::uint64_t const columns = tensor.columns();
  if (tensor.fill == SynthTensor::Fill::ones) {
    for (std::uint64_t c = 0; c < columns; ++c) store(c, 1.0F);
    return;
  }
  std::uint64_t const first = row * columns;
  float mean = 0;
  if (tensor.fill == SynthTensor::Fill::bell_zero_sum) {
    std::int64_t sum = 0;
    for (std::uint64_t c = 0; c < columns; ++c) sum += bell(tensor.seed, first + c);
    mean = static_cast<float>(static_cast<double>(sum) / static_cast<double>(columns));
  }
  float const scale = tensor.deviation / kBellDeviation * (tensor.row_scale.empty() ? 1.0F : tensor.row_scale[row]);
  for (std::uint64_t c = 0; c < columns; ++c) {
    store(c, (static_cast<float>(bell(tensor.seed, first + c)) - mean) * scale);
  }
}

/// A standard deviation that gives outputs of norm `gain` for inputs of norm 1.
float fan_in(std::int64_t inputs, float gain = 1) { return gain / std::sqrt(static_cast<float>(inputs)); }

/// Factors of geometric mean 1 whose logarithms are evenly spread, with standard deviation `spread`, in random order.
std::vector<float> spread_norms(std::uint32_t count, float spread, std::uint64_t seed) {
  std::vector<std::uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0U);
  for (std::uint32_t i = count; i > 1; --i) std::swap(order[i - 1], order[random_bits(seed, i) % i]);
  std::vector<float> factors(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    double const place = (2.0 * order[i] + 1.0) / count - 1.0;  // evenly within (-1, 1)
    factors[i] = static_cast<float>(std::exp(spread * std::sqrt(3.0) * place));
  }
  return factors;
}

class Planner {
 public:
  Planner(SwitchConfig const& config, std::uint64_t seed) : config_(config), seed_(seed) {
    // Deeper models add less in each block, so that the token's share at the end is the same.
    float const depth = std::max(kReferenceDepth, static_cast<float>(config.num_layers));
    depth_gain_ = std::sqrt(kReferenceDepth / depth);
  }

  std::vector<SynthTensor> plan() {
    add("shared.weight", {config_.vocab_size, config_.d_model}, 1);
    std::uint32_t moe_layer = 0;
    for (std::uint32_t block = 0; block < config_.num_layers; ++block) {
      std::string const base = "encoder.block." + std::to_string(block) + ".layer.";
      add_attention(base + "0.", block == 0);
      add_norm(base + "1.layer_norm.weight");
      if (config_.is_sparse(block)) {
        add_experts(base + "1.mlp.", moe_layer++);
      } else {
        add_ffn(base + "1.mlp.");
      }
    }
    add_norm("encoder.final_layer_norm.weight");
    add("classification_head.dense.weight", {config_.d_model, config_.d_model}, fan_in(config_.d_model));
    add("classification_head.dense.bias", {config_.d_model}, kHeadBias);
    add("classification_head.out_proj.weight", {config_.num_labels, config_.d_model}, fan_in(config_.d_model));
    add("classification_head.out_proj.bias", {config_.num_labels}, kHeadBias);
    std::ranges::sort(tensors_, {}, &SynthTensor::name);
    return std::move(tensors_);
  }

 private:
  SynthTensor& add(std::string name, std::vector<std::int64_t> shape, float deviation) {
    std::uint64_t const seed = seed_of(seed_, name);
    tensors_.push_back({std::move(name), std::move(shape), SynthTensor::Fill::bell, deviation, {}, seed});
    return tensors_.back();
  }

  void add_norm(std::string name) { add(std::move(name), {config_.d_model}, 1).fill = SynthTensor::Fill::ones; }

  void add_attention(std::string const& base, bool has_position_bias) {
    std::int64_t const inner = config_.inner_dim();
    float const plain = fan_in(config_.d_model);
    add_norm(base + "layer_norm.weight");
    // T5 does not divide scores by sqrt(d_kv); its queries do.
    add(base + "SelfAttention.q.weight", {inner, config_.d_model}, plain * fan_in(config_.d_kv));
    add(base + "SelfAttention.k.weight", {inner, config_.d_model}, plain);
    add(base + "SelfAttention.v.weight", {inner, config_.d_model}, plain);
    add(base + "SelfAttention.o.weight", {config_.d_model, inner}, fan_in(inner, kAttentionGain * depth_gain_));
    if (!has_position_bias) return;
    add(base + "SelfAttention.relative_attention_bias.weight",
        {config_.relative_attention_num_buckets, config_.num_heads}, kPositionBias);
  }

  void add_ffn(std::string const& base) {
    add(base + "wi.weight", {config_.d_ff, config_.d_model}, fan_in(config_.d_model));
    add(base + "wo.weight", {config_.d_model, config_.d_ff}, fan_in(config_.d_ff, kFfnGain * depth_gain_)).fill =
        SynthTensor::Fill::bell_zero_sum;
  }

  void add_experts(std::string const& base, std::uint32_t moe_layer) {
    for (std::uint32_t expert = 0; expert < config_.num_experts; ++expert) {
      add_ffn(base + "experts.expert_" + std::to_string(expert) + ".");
    }
    auto& router = add(base + "router.classifier.weight", {std::int64_t{config_.num_experts}, config_.d_model},
                       fan_in(config_.d_model, kRouterNorm));
    std::uint32_t const last = std::max(config_.moe_layers(), 2U) - 1;
    float const spread = kDeepestSpread * static_cast<float>(moe_layer) / static_cast<float>(last);
    router.row_scale = spread_norms(config_.num_experts, spread, random_bits(router.seed, 0));
  }

  SwitchConfig const& config_;
  std::uint64_t seed_;
  float depth_gain_ = 1;
  std::vector<SynthTensor> tensors_;
};

}  // namespace

void SynthTensor::write_row(std::uint64_t row, Dtype dtype, std::span<std::byte> out) const noexcept {
  if (dtype == Dtype::f32) {
    fill_row(*this, row, [&](std::uint64_t c, float value) { std::memcpy(out.data() + c * 4, &value, 4); });
  } else {
    fill_row(*this, row, [&](std::uint64_t c, float value) {
      bf16 const rounded = to_bf16(value);
      std::memcpy(out.data() + c * 2, &rounded.bits, 2);
    });
  }
}

std::vector<SynthTensor> plan_switch_tensors(SwitchConfig const& config, std::uint64_t seed) {
  return Planner(config, seed).plan();
}

}  // namespace sida::cli
