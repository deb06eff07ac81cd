#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "sida/route/router.hpp"
#include "tests/model/random_checkpoint.hpp"

namespace sida::testing {

/// A Switch encoder in double precision and straight loops, one sequence at a time: what the fast one is compared
/// with. Shares no code with it.
class ReferenceEncoder {
 public:
  using Rows = std::vector<std::vector<double>>;  // [tokens][features]

  struct Output {
    Rows hidden;                                    // [tokens][d_model]
    std::vector<double> logits;                     // [labels]
    std::vector<std::vector<std::int32_t>> routed;  // [MoE layer][token], -1: dropped
    double least_margin = INFINITY;  // between the two highest probabilities of a router, over all tokens and layers
  };

  ReferenceEncoder(SwitchConfig const& config, NamedTensors const& tensors, CapacityRule rule)
      : config_(config), tensors_(tensors), rule_(rule) {}

  Output run(std::span<std::int32_t const> ids) const {
    Output out;
    Rows h;
    for (std::int32_t const id : ids) h.push_back(row("shared.weight", id));
    for (std::uint32_t b = 0; b < config_.num_layers; ++b) {
      std::string const block = "encoder.block." + std::to_string(b) + ".layer.";
      add(h, attention(norm(h, block + "0.layer_norm.weight"), block + "0.SelfAttention."));
      Rows const x = norm(h, block + "1.layer_norm.weight");
      bool const is_sparse = config_.encoder_sparse_step == 1 || b % config_.encoder_sparse_step == 1;
      add(h, is_sparse ? moe(x, block + "1.mlp.", out) : ffn(x, block + "1.mlp."));
    }
    out.hidden = norm(h, "encoder.final_layer_norm.weight");
    std::vector<double> mean(static_cast<std::size_t>(config_.d_model));
    for (auto const& token : out.hidden) {
      for (std::size_t c = 0; c < mean.size(); ++c) mean[c] += token[c] / static_cast<double>(out.hidden.size());
    }
    Rows dense = linear({mean}, "classification_head.dense.weight");
    auto const& dense_bias = tensors_.at("classification_head.dense.bias").values;
    for (std::size_t c = 0; c < mean.size(); ++c) dense[0][c] = std::tanh(dense[0][c] + dense_bias[c]);
    out.logits = linear(dense, "classification_head.out_proj.weight")[0];
    auto const& bias = tensors_.at("classification_head.out_proj.bias").values;
    for (std::size_t c = 0; c < out.logits.size(); ++c) out.logits[c] += bias[c];
    return out;
  }

 private:
  std::vector<double> row(std::string const& name, std::int64_t r) const {
    NamedTensor const& tensor = tensors_.at(name);
    auto const first = tensor.values.begin() + r * tensor.shape[1];
    return {first, first + tensor.shape[1]};
  }

  static void add(Rows& to, Rows const& from) {
    for (std::size_t t = 0; t < to.size(); ++t) {
      for (std::size_t c = 0; c < to[t].size(); ++c) to[t][c] += from[t][c];
    }
  }

  Rows norm(Rows const& x, std::string const& name) const {
    auto const& weight = tensors_.at(name).values;
    Rows y = x;
    for (auto& token : y) {
      double squares = 0;
      for (double const value : token) squares += value * value;
      double const scale = 1 / std::sqrt(squares / static_cast<double>(token.size()) + config_.layer_norm_epsilon);
      for (std::size_t c = 0; c < token.size(); ++c) token[c] *= scale * weight[c];
    }
    return y;
  }

  Rows linear(Rows const& x, std::string const& name) const {
    NamedTensor const& w = tensors_.at(name);  // [out, in]
    Rows y;
    for (auto const& token : x) {
      auto& out = y.emplace_back();
      for (std::int64_t o = 0; o < w.shape[0]; ++o) {
        double sum = 0;
        for (std::size_t i = 0; i < token.size(); ++i) {
          sum += token[i] * w.values[static_cast<std::size_t>(o) * token.size() + i];
        }
        out.push_back(sum);
      }
    }
    return y;
  }

  /// As transformers' _relative_position_bucket, bidirectional.
  std::int64_t bucket(std::int64_t distance) const {
    std::int64_t buckets = config_.relative_attention_num_buckets / 2;
    std::int64_t result = distance > 0 ? buckets : 0;
    distance = std::abs(distance);
    std::int64_t const exact = buckets / 2;
    if (distance < exact) return result + distance;
    float const large =
        std::log(static_cast<float>(distance) / static_cast<float>(exact)) /
        std::log(static_cast<float>(config_.relative_attention_max_distance) / static_cast<float>(exact));
    return result +
           std::min(exact + static_cast<std::int64_t>(large * static_cast<float>(buckets - exact)), buckets - 1);
  }

  Rows attention(Rows const& x, std::string const& prefix) const {
    Rows const q = linear(x, prefix + "q.weight");
    Rows const k = linear(x, prefix + "k.weight");
    Rows const v = linear(x, prefix + "v.weight");
    auto const& bias = tensors_.at("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight").values;
    Rows context(x.size(), std::vector<double>(q[0].size()));
    auto const heads = static_cast<std::size_t>(config_.num_heads);
    auto const d_kv = static_cast<std::size_t>(config_.d_kv);
    for (std::size_t head = 0; head < heads; ++head) {
      for (std::size_t i = 0; i < x.size(); ++i) {
        std::vector<double> p;
        for (std::size_t j = 0; j < x.size(); ++j) {
          auto const distance = static_cast<std::int64_t>(j) - static_cast<std::int64_t>(i);
          double score = bias[static_cast<std::size_t>(bucket(distance)) * heads + head];
          for (std::size_t c = head * d_kv; c < (head + 1) * d_kv; ++c) score += q[i][c] * k[j][c];
          p.push_back(score);
        }
        softmax(p);
        for (std::size_t j = 0; j < x.size(); ++j) {
          for (std::size_t c = head * d_kv; c < (head + 1) * d_kv; ++c) context[i][c] += p[j] * v[j][c];
        }
      }
    }
    return linear(context, prefix + "o.weight");
  }

  static void softmax(std::vector<double>& p) {
    double const highest = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& value : p) sum += value = std::exp(value - highest);
    for (double& value : p) value /= sum;
  }

  Rows ffn(Rows const& x, std::string const& prefix) const {
    Rows inner = linear(x, prefix + "wi.weight");
    for (auto& token : inner) {
      for (double& value : token) {
        value = config_.activation == FfnKind::relu ? std::max(value, 0.0)
                                                    : value * 0.5 * std::erfc(-value / std::sqrt(2.0));
      }
    }
    return linear(inner, prefix + "wo.weight");
  }

  Rows moe(Rows const& x, std::string const& prefix, Output& out) const {
    Rows const logits = linear(x, prefix + "router.classifier.weight");
    std::map<std::size_t, std::int64_t> used;
    auto& routed = out.routed.emplace_back();
    Rows y;
    for (std::size_t t = 0; t < x.size(); ++t) {
      std::vector<double> p = logits[t];
      softmax(p);
      auto const expert = static_cast<std::size_t>(std::max_element(p.begin(), p.end()) - p.begin());
      double const gate = p[expert];
      std::vector<double> sorted = p;
      std::sort(sorted.rbegin(), sorted.rend());
      out.least_margin = std::min(out.least_margin, sorted[0] - sorted[1]);
      bool const kept = rule_ == CapacityRule::none || used[expert]++ < config_.expert_capacity;
      routed.push_back(kept ? static_cast<std::int32_t>(expert) : -1);
      std::vector<double> token(x[t].size());
      if (kept) {
        token = ffn({x[t]}, prefix + "experts.expert_" + std::to_string(expert) + ".")[0];
      } else if (rule_ == CapacityRule::hf_4_32) {
        token = x[t];
      }
      for (double& value : token) value *= gate;
      y.push_back(std::move(token));
    }
    return y;
  }

  SwitchConfig config_;
  NamedTensors const& tensors_;
  CapacityRule rule_;
};

}  // namespace sida::testing
