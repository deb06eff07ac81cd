#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "sida/core/dtype.hpp"
#include "sida/model/switch_config.hpp"
#include "tests/io/safetensors_builder.hpp"
#include "tests/io/temp_dir.hpp"

namespace sida::testing {

struct NamedTensor {
  std::vector<std::int64_t> shape;
  std::vector<float> values;  // as they read back from `dtype`
  Dtype dtype = Dtype::f32;
};
using NamedTensors = std::map<std::string, NamedTensor>;

/// A small Switch encoder: every second block sparse, room for few tokens per expert, sizes that are not round.
inline SwitchConfig small_config() {
  SwitchConfig config;
  config.vocab_size = 41;
  config.d_model = 26;
  config.d_kv = 7;
  config.d_ff = 37;
  config.num_heads = 3;
  config.num_layers = 5;
  config.num_experts = 6;
  config.expert_capacity = 3;
  config.encoder_sparse_step = 2;
  config.relative_attention_num_buckets = 12;
  config.relative_attention_max_distance = 20;
  config.num_labels = 3;
  return config;
}

/// The text of a config.json, with the sparse step written out.
inline std::string config_text(SwitchConfig const& config) {
  nlohmann::json const json = {
      {"model_type", "switch_transformers"},
      {"vocab_size", config.vocab_size},
      {"d_model", config.d_model},
      {"d_kv", config.d_kv},
      {"d_ff", config.d_ff},
      {"num_heads", config.num_heads},
      {"num_layers", config.num_layers},
      {"num_experts", config.num_experts},
      {"expert_capacity", config.expert_capacity},
      {"encoder_sparse_step", config.encoder_sparse_step},
      {"relative_attention_num_buckets", config.relative_attention_num_buckets},
      {"relative_attention_max_distance", config.relative_attention_max_distance},
      {"layer_norm_epsilon", config.layer_norm_epsilon},
      {"dense_act_fn", config.activation == FfnKind::gelu ? "gelu" : "relu"},
      {"num_labels", config.num_labels},
  };
  return json.dump();
}

/// Nearest value of binary16; without its subnormals, which these tests don't need.
inline std::uint16_t fp16_bits(float value) {
  int exponent = 0;
  float const fraction = std::frexp(std::fabs(value), &exponent);  // in [0.5, 1)
  auto mantissa = static_cast<int>(std::nearbyint(std::ldexp(fraction, 11)));
  if (mantissa == 2048) {
    mantissa = 1024;
    ++exponent;
  }
  std::uint16_t const sign = std::signbit(value) ? 0x8000 : 0;
  if (mantissa == 0 || exponent + 14 <= 0) return sign;
  return static_cast<std::uint16_t>(sign | (exponent + 14) << 10 | (mantissa - 1024));
}

inline float rounded_to(Dtype dtype, float value) {
  switch (dtype) {
    case Dtype::f32: return value;
    case Dtype::bf16: return to_float(to_bf16(value));
    case Dtype::f16: return to_float(fp16{fp16_bits(value)});
  }
  return value;
}

/// Makes all tensors of an encoder, with its head, of pseudo-random values.
class RandomTensors {
 public:
  RandomTensors(SwitchConfig const& config, Dtype dense, Dtype experts, std::uint32_t seed)
      : config_(config), dense_(dense), experts_(experts), random_(seed) {}

  NamedTensors make() {
    std::int64_t const d_model = config_.d_model;
    std::int64_t const inner = config_.num_heads * config_.d_kv;
    add("shared.weight", {config_.vocab_size, d_model}, 1, dense_);
    for (std::uint32_t b = 0; b < config_.num_layers; ++b) {
      std::string const block = "encoder.block." + std::to_string(b) + ".layer.";
      for (char const* const name : {"q", "k", "v"}) {
        add(block + "0.SelfAttention." + name + ".weight", {inner, d_model}, 1, dense_);
      }
      add(block + "0.SelfAttention.o.weight", {d_model, inner}, 1, dense_);
      add(block + "0.layer_norm.weight", {d_model}, 1, dense_);
      add(block + "1.layer_norm.weight", {d_model}, 1, dense_);
      add_ffn(block + "1.mlp.", b);
    }
    add("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        {config_.relative_attention_num_buckets, config_.num_heads}, 1, dense_);
    add("encoder.final_layer_norm.weight", {d_model}, 1, dense_);
    add("classification_head.dense.weight", {d_model, d_model}, 1, dense_);
    add("classification_head.dense.bias", {d_model}, 1, dense_);
    add("classification_head.out_proj.weight", {config_.num_labels, d_model}, 1, dense_);
    add("classification_head.out_proj.bias", {config_.num_labels}, 1, dense_);
    return std::move(tensors_);
  }

 private:
  void add_ffn(std::string const& mlp, std::uint32_t block) {
    std::vector<std::string> prefixes = {mlp};
    if (config_.is_sparse(block)) {
      // Large, so that the router's choices are clear.
      add(mlp + "router.classifier.weight", {config_.num_experts, config_.d_model}, 4, dense_);
      prefixes.clear();
      for (std::uint32_t e = 0; e < config_.num_experts; ++e) {
        prefixes.push_back(mlp + "experts.expert_" + std::to_string(e) + ".");
      }
    }
    Dtype const dtype = config_.is_sparse(block) ? experts_ : dense_;
    for (auto const& prefix : prefixes) {
      add(prefix + "wi.weight", {config_.d_ff, config_.d_model}, 1, dtype);
      add(prefix + "wo.weight", {config_.d_model, config_.d_ff}, 1, dtype);
    }
  }

  /// Uniform with variance scale^2 / columns; vectors (norms, biases) in [0.5, 1.5).
  void add(std::string const& name, std::vector<std::int64_t> const& shape, double scale, Dtype dtype) {
    NamedTensor tensor{shape, {}, dtype};
    std::int64_t count = 1;
    for (std::int64_t const extent : shape) count *= extent;
    double const reach = scale * std::sqrt(3.0 / static_cast<double>(shape.back()));
    for (std::int64_t i = 0; i < count; ++i) {
      double const unit = static_cast<double>(random_()) / 4294967296.0;
      double const value = shape.size() == 1 ? 0.5 + unit : (2 * unit - 1) * reach;
      tensor.values.push_back(rounded_to(dtype, static_cast<float>(value)));
    }
    tensors_[name] = std::move(tensor);
  }

  SwitchConfig config_;
  Dtype dense_;
  Dtype experts_;
  std::mt19937 random_;
  NamedTensors tensors_;
};

inline NamedTensors random_tensors(SwitchConfig const& config, Dtype dense = Dtype::f32, Dtype experts = Dtype::f32,
                                   std::uint32_t seed = 1) {
  return RandomTensors(config, dense, experts, seed).make();
}

inline SafetensorsBuilder builder_of(NamedTensors const& tensors) {
  SafetensorsBuilder builder;
  for (auto const& [name, tensor] : tensors) {
    std::vector<std::uint16_t> halves;
    switch (tensor.dtype) {
      case Dtype::f32: builder.add(name, "F32", tensor.shape, tensor.values); continue;
      case Dtype::bf16:
        for (float const value : tensor.values) halves.push_back(to_bf16(value).bits);
        builder.add(name, "BF16", tensor.shape, halves);
        continue;
      case Dtype::f16:
        for (float const value : tensor.values) halves.push_back(fp16_bits(value));
        builder.add(name, "F16", tensor.shape, halves);
        continue;
    }
  }
  return builder;
}

/// Writes config.json and model.safetensors into `folder`.
inline void write_checkpoint(TempDir const& folder, SwitchConfig const& config, NamedTensors const& tensors) {
  write_file(folder / "config.json", config_text(config));
  builder_of(tensors).write(folder / "model.safetensors");
}

}  // namespace sida::testing
