#include "model/switch_weights.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "dense/weight_loader.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::model_detail {
namespace {

void load_all(dense::WeightLoader& loader, SwitchTensors const& tensors, SwitchWeights& weights) {
  loader.matrix(weights.embedding, tensors.embedding);
  loader.floats(weights.position_bias, tensors.position_bias);
  weights.blocks.resize(tensors.blocks.size());
  for (std::size_t i = 0; i < tensors.blocks.size(); ++i) {
    SwitchBlockTensors const& from = tensors.blocks[i];
    SwitchBlockWeights& to = weights.blocks[i];
    loader.floats(to.attention_norm, from.attention_norm);
    loader.matrix(to.q, from.q);
    loader.matrix(to.k, from.k);
    loader.matrix(to.v, from.v);
    loader.matrix(to.o, from.o);
    loader.floats(to.ffn_norm, from.ffn_norm);
    loader.matrix(to.wi, from.wi);
    loader.matrix(to.wo, from.wo);
    loader.matrix(to.router, from.router);
  }
  loader.floats(weights.final_norm, tensors.final_norm);
  loader.matrix(weights.head_dense, tensors.head_dense);
  loader.floats(weights.head_dense_bias, tensors.head_dense_bias);
  loader.matrix(weights.head_out, tensors.head_out);
  loader.floats(weights.head_out_bias, tensors.head_out_bias);
}

}  // namespace

std::int64_t relative_position_bucket(std::int64_t distance, std::int64_t buckets, std::int64_t max_distance) noexcept {
  std::int64_t const half = buckets / 2;
  std::int64_t const base = distance > 0 ? half : 0;
  std::int64_t const away = std::abs(distance);
  std::int64_t const exact = half / 2;
  if (away < exact) return base + away;
  float const quotient = static_cast<float>(away) / static_cast<float>(exact);
  auto const ratio = static_cast<float>(std::log(static_cast<double>(quotient)));  // correctly rounded
  // transformers takes this logarithm in float64, and rounds it once it meets the float32 tensor.
  auto const scale = static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(exact)));
  auto const large = static_cast<std::int64_t>(ratio / scale * static_cast<float>(half - exact));
  return base + std::min(exact + large, half - 1);
}

Result<SwitchWeights> load_switch_weights(SwitchConfig const& config, SwitchTensors const& tensors,
                                          TensorSource const& source, MemoryResource& memory) {
  SwitchWeights weights;
  std::int32_t* buckets = nullptr;
  std::int64_t const reach = config.relative_attention_max_distance;
  auto const walk = [&](dense::WeightLoader& loader) {
    load_all(loader, tensors, weights);
    buckets = loader.room<std::int32_t>(reach + 1);
  };
  SIDA_TRY_ASSIGN(weights.arena, dense::load_weights(source, memory, walk));
  for (std::int64_t away = 0; away <= reach; ++away) {
    buckets[away] =
        static_cast<std::int32_t>(relative_position_bucket(-away, config.relative_attention_num_buckets, reach));
  }
  weights.position_buckets = buckets;
  return weights;
}

}  // namespace sida::inline v0::model_detail
