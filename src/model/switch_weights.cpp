#include "model/switch_weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "sida/core/workspace.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::model_detail {
namespace {

template <class T>
void widen(std::byte const* source, std::span<float> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, source + i * sizeof(T), sizeof(T));
    out[i] = to_float(value);
  }
}

/// Walks over all tensors in one order, twice: first to count bytes, then to read.
class Loader {
 public:
  Loader(TensorSource const& source, Workspace place, bool reads) : source_(source), place_(place), reads_(reads) {}

  void matrix(WeightMatrix& weight, TensorInfo const* tensor) {
    if (tensor == nullptr || !status_) return;
    std::byte* const data = place_.take<std::byte>(static_cast<std::int64_t>(tensor->size_bytes));
    weight = {data, tensor->shape[0], tensor->shape[1], *tensor->dtype()};
    if (reads_) status_ = source_.read(tensor->name, 0, {data, static_cast<std::size_t>(tensor->size_bytes)});
  }

  /// Vectors are few and short: they are widened to float.
  void vector(float const*& weight, TensorInfo const* tensor) {
    if (tensor == nullptr || !status_) return;
    float* const data = place_.take<float>(tensor->shape[0]);
    weight = data;
    if (reads_) read_floats(*tensor, {data, static_cast<std::size_t>(tensor->shape[0])});
  }

  void read_floats(TensorInfo const& tensor, std::span<float> out) {
    if (!status_) return;
    staging_.resize(static_cast<std::size_t>(tensor.size_bytes));
    status_ = source_.read(tensor.name, 0, staging_);
    if (!status_) return;
    switch (*tensor.dtype()) {
      case Dtype::f32: widen<float>(staging_.data(), out); break;
      case Dtype::f16: widen<fp16>(staging_.data(), out); break;
      case Dtype::bf16: widen<bf16>(staging_.data(), out); break;
    }
  }

  void walk(SwitchTensors const& tensors, SwitchWeights& weights) {
    matrix(weights.embedding, tensors.embedding);
    weights.blocks.resize(tensors.blocks.size());
    for (std::size_t i = 0; i < tensors.blocks.size(); ++i) {
      SwitchBlockTensors const& from = tensors.blocks[i];
      SwitchBlockWeights& to = weights.blocks[i];
      vector(to.attention_norm, from.attention_norm);
      matrix(to.q, from.q);
      matrix(to.k, from.k);
      matrix(to.v, from.v);
      matrix(to.o, from.o);
      vector(to.ffn_norm, from.ffn_norm);
      matrix(to.wi, from.wi);
      matrix(to.wo, from.wo);
      matrix(to.router, from.router);
    }
    vector(weights.final_norm, tensors.final_norm);
    matrix(weights.head_dense, tensors.head_dense);
    vector(weights.head_dense_bias, tensors.head_dense_bias);
    matrix(weights.head_out, tensors.head_out);
    vector(weights.head_out_bias, tensors.head_out_bias);
  }

  std::size_t used_bytes() const noexcept { return place_.used_bytes(); }
  Status take_status() { return std::move(status_); }

 private:
  TensorSource const& source_;
  Workspace place_;
  bool reads_;
  std::vector<std::byte> staging_;
  Status status_;
};

/// [buckets, heads] as stored → [heads, 2 * max_distance + 1] by distance.
std::vector<float> spread_position_bias(SwitchConfig const& config, std::vector<float> const& bias) {
  std::int64_t const reach = config.relative_attention_max_distance;
  std::int64_t const width = 2 * reach + 1;
  std::vector<float> table(static_cast<std::size_t>(config.num_heads * width));
  for (std::int64_t distance = -reach; distance <= reach; ++distance) {
    std::int64_t const bucket = relative_position_bucket(distance, config.relative_attention_num_buckets, reach);
    for (std::int64_t head = 0; head < config.num_heads; ++head) {
      table[static_cast<std::size_t>(head * width + distance + reach)] =
          bias[static_cast<std::size_t>(bucket * config.num_heads + head)];
    }
  }
  return table;
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
  Loader counter(source, Workspace(), false);
  counter.walk(tensors, weights);
  SIDA_TRY_ASSIGN(weights.arena, Buffer::allocate(memory, counter.used_bytes(), Workspace::kAlignment));

  Loader loader(source, Workspace(weights.arena.bytes()), true);
  loader.walk(tensors, weights);
  std::vector<float> bias(static_cast<std::size_t>(config.relative_attention_num_buckets * config.num_heads));
  loader.read_floats(*tensors.position_bias, bias);
  SIDA_TRY(loader.take_status());
  weights.position_bias = spread_position_bias(config, bias);
  return weights;
}

}  // namespace sida::inline v0::model_detail
