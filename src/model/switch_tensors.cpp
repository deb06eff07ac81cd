#include "model/switch_tensors.hpp"

#include <initializer_list>
#include <string_view>

#include "dense/tensor_finder.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::model_detail {
namespace {

using dense::TensorFinder;

std::string block_name(std::string const& prefix, std::uint32_t block) {
  return prefix + "encoder.block." + std::to_string(block) + ".layer.";
}

void find_block(TensorFinder& finder, SwitchConfig const& config, std::string const& prefix, std::uint32_t block,
                SwitchBlockTensors& tensors) {
  std::int64_t const inner = config.inner_dim();
  std::string const attention = block_name(prefix, block) + "0.";
  std::string const ffn = block_name(prefix, block) + "1.";
  finder.find(tensors.attention_norm, attention + "layer_norm.weight", {config.d_model});
  finder.find(tensors.q, attention + "SelfAttention.q.weight", {inner, config.d_model});
  finder.find(tensors.k, attention + "SelfAttention.k.weight", {inner, config.d_model});
  finder.find(tensors.v, attention + "SelfAttention.v.weight", {inner, config.d_model});
  finder.find(tensors.o, attention + "SelfAttention.o.weight", {config.d_model, inner});
  finder.find(tensors.ffn_norm, ffn + "layer_norm.weight", {config.d_model});
  if (config.is_sparse(block)) {
    finder.find(tensors.router, ffn + "mlp.router.classifier.weight",
                {std::int64_t{config.num_experts}, config.d_model});
  } else {
    finder.find(tensors.wi, ffn + "mlp.wi.weight", {config.d_ff, config.d_model});
    finder.find(tensors.wo, ffn + "mlp.wo.weight", {config.d_model, config.d_ff});
  }
}

/// The head's names never have the prefix: it stands beside the model, not inside.
void find_head(TensorFinder& finder, SwitchConfig const& config, SwitchTensors& tensors) {
  static constexpr std::string_view kNames[] = {
      "classification_head.dense.weight",
      "classification_head.dense.bias",
      "classification_head.out_proj.weight",
      "classification_head.out_proj.bias",
  };
  bool has_any = false;
  for (std::string_view const name : kNames) has_any = has_any || finder.has(name);
  if (!has_any) return;
  finder.find(tensors.head_dense, std::string(kNames[0]), {config.d_model, config.d_model});
  finder.find(tensors.head_dense_bias, std::string(kNames[1]), {config.d_model});
  finder.find(tensors.head_out, std::string(kNames[2]), {config.num_labels, config.d_model});
  finder.find(tensors.head_out_bias, std::string(kNames[3]), {config.num_labels});
}

}  // namespace

Result<SwitchTensors> find_switch_tensors(SwitchConfig const& config, TensorSource const& source) {
  constexpr std::string_view kPrefix = "switch_transformers.";
  SwitchTensors tensors;
  TensorFinder finder(source, "config.json");
  std::string const final_norm = "encoder.final_layer_norm.weight";
  if (!finder.has(final_norm) && finder.has(std::string(kPrefix) + final_norm)) tensors.prefix = kPrefix;
  std::string const& prefix = tensors.prefix;

  std::string const shared = prefix + "shared.weight";
  std::string const alias = prefix + "encoder.embed_tokens.weight";
  finder.find(tensors.embedding, !finder.has(shared) && finder.has(alias) ? alias : shared,
              {config.vocab_size, config.d_model});
  finder.find(tensors.position_bias, block_name(prefix, 0) + "0.SelfAttention.relative_attention_bias.weight",
              {config.relative_attention_num_buckets, config.num_heads});
  tensors.blocks.resize(config.num_layers);
  for (std::uint32_t block = 0; block < config.num_layers; ++block) {
    find_block(finder, config, prefix, block, tensors.blocks[block]);
  }
  finder.find(tensors.final_norm, prefix + final_norm, {config.d_model});
  find_head(finder, config, tensors);
  SIDA_TRY(finder.take_status());
  tensors.all = finder.found();
  return tensors;
}

Result<std::vector<std::vector<ExpertTensorNames>>> find_expert_names(SwitchConfig const& config,
                                                                      std::string const& prefix,
                                                                      TensorSource const& source) {
  std::vector<std::vector<ExpertTensorNames>> names;
  for (std::uint32_t block = 0; block < config.num_layers; ++block) {
    if (!config.is_sparse(block)) continue;
    auto& layer = names.emplace_back();
    for (std::uint32_t expert = 0; expert < config.num_experts; ++expert) {
      std::string const base = block_name(prefix, block) + "1.mlp.experts.expert_" + std::to_string(expert);
      layer.push_back({{}, base + ".wi.weight", base + ".wo.weight"});
      for (auto const* const name : {&layer.back().in, &layer.back().out}) {
        if (source.find(*name) != nullptr) continue;
        return Error(Errc::not_found, source.path() + ": no tensor '" + *name + "', but config.json implies " +
                                          std::to_string(config.num_experts) + " experts");
      }
    }
  }
  return names;
}

}  // namespace sida::inline v0::model_detail
