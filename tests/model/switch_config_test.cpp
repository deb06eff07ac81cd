#include "sida/model/switch_config.hpp"

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace sida {
namespace {

/// A config with these members beside the model type.
std::string config_with(std::string const& members) {
  return R"({"model_type": "switch_transformers")" + (members.empty() ? "" : ", " + members) + "}";
}

SwitchConfig parsed(std::string const& members) {
  auto config = parse_switch_config(config_with(members), "config.json");
  EXPECT_TRUE(config) << config.message();
  return config ? *config : SwitchConfig();
}

std::vector<std::uint32_t> sparse_blocks(SwitchConfig const& config) {
  std::vector<std::uint32_t> blocks;
  for (std::uint32_t block = 0; block < config.num_layers; ++block) {
    if (config.is_sparse(block)) blocks.push_back(block);
  }
  EXPECT_EQ(blocks.size(), config.moe_layers());
  return blocks;
}

TEST(SwitchConfig, HasTransformersDefaults) {
  EXPECT_EQ(parsed(""), SwitchConfig());
  EXPECT_EQ(sparse_blocks(parsed("")), (std::vector<std::uint32_t>{1, 5, 9}));
}

TEST(SwitchConfig, ReadsEveryKey) {
  SwitchConfig const config = parsed(
      R"("vocab_size": 100, "d_model": 10, "d_kv": 3, "d_ff": 20, "num_heads": 4, "num_layers": 6, "num_experts": 7,
      "expert_capacity": 8, "encoder_sparse_step": 2, "relative_attention_num_buckets": 16,
      "relative_attention_max_distance": 64, "layer_norm_epsilon": 1e-5, "dense_act_fn": "gelu", "num_labels": 5,
      "pad_token_id": 11, "eos_token_id": 12, "dtype": "bfloat16", "router_bias": false, "router_dtype": "float32",
      "num_selected_experts": 1, "is_gated_act": false, "feed_forward_proj": "relu")");
  SwitchConfig expected;
  expected.vocab_size = 100;
  expected.d_model = 10;
  expected.d_kv = 3;
  expected.d_ff = 20;
  expected.num_heads = 4;
  expected.num_layers = 6;
  expected.num_experts = 7;
  expected.expert_capacity = 8;
  expected.encoder_sparse_step = 2;
  expected.relative_attention_num_buckets = 16;
  expected.relative_attention_max_distance = 64;
  expected.layer_norm_epsilon = 1e-5F;
  expected.activation = FfnKind::gelu;
  expected.num_labels = 5;
  expected.pad_token_id = 11;
  expected.eos_token_id = 12;
  expected.dtype = Dtype::bf16;
  EXPECT_EQ(config, expected);
}

TEST(SwitchConfig, DerivesTheSparseStepAsTransformersDoes) {
  using Blocks = std::vector<std::uint32_t>;
  EXPECT_EQ(sparse_blocks(parsed(R"("num_layers": 12, "num_sparse_encoder_layers": 6)")), (Blocks{1, 3, 5, 7, 9, 11}));
  EXPECT_EQ(sparse_blocks(parsed(R"("num_layers": 5, "num_sparse_encoder_layers": 3)")), (Blocks{0, 1, 2, 3, 4}));
  EXPECT_EQ(sparse_blocks(parsed(R"("num_layers": 4, "num_sparse_encoder_layers": 0)")), (Blocks{1}));
  EXPECT_EQ(sparse_blocks(parsed(R"("num_layers": 1, "num_sparse_encoder_layers": 0)")), (Blocks{0}));
  EXPECT_EQ(sparse_blocks(parsed(R"("num_layers": 2, "num_sparse_encoder_layers": 3)")), (Blocks{}));
  EXPECT_EQ(sparse_blocks(parsed(R"("num_layers": 4, "encoder_sparse_step": 0)")), (Blocks{}));
  EXPECT_EQ(sparse_blocks(parsed(R"("num_layers": 7, "encoder_sparse_step": 3)")), (Blocks{1, 4}));
  EXPECT_EQ(sparse_blocks(parsed(R"("num_layers": 3, "encoder_sparse_step": 1, "num_sparse_encoder_layers": 0)")),
            (Blocks{0, 1, 2}));
}

TEST(SwitchConfig, TakesOlderKeys) {
  EXPECT_EQ(parsed(R"("torch_dtype": "float16")").dtype, Dtype::f16);
  EXPECT_EQ(parsed(R"("torch_dtype": "float16", "dtype": "float32")").dtype, Dtype::f32);
  EXPECT_EQ(parsed(R"("torch_dtype": "float16", "dtype": null)").dtype, Dtype::f16);
  EXPECT_EQ(parsed(R"("feed_forward_proj": "gelu")").activation, FfnKind::gelu);
  EXPECT_EQ(parsed(R"("feed_forward_proj": "gelu", "dense_act_fn": "relu")").activation, FfnKind::relu);
}

TEST(SwitchConfig, CountsLabels) {
  EXPECT_EQ(parsed("").num_labels, 2);
  EXPECT_EQ(parsed(R"("id2label": {"0": "a", "1": "b", "2": "c"})").num_labels, 3);
  EXPECT_EQ(parsed(R"("id2label": {"0": "a", "1": "b", "2": "c"}, "num_labels": 4)").num_labels, 4);
  EXPECT_EQ(parsed(R"("id2label": null, "num_labels": null)").num_labels, 2);
}

TEST(SwitchConfig, TakesANullTokenIdForAbsent) {
  SwitchConfig const config = parsed(R"("pad_token_id": null, "eos_token_id": null)");
  EXPECT_EQ(config.pad_token_id, 0);
  EXPECT_EQ(config.eos_token_id, 1);
}

TEST(SwitchConfig, TakesOrRejectsAnyBytes) {
  std::string const good = config_with(
      R"("d_model": 768, "encoder_sparse_step": 2, "num_layers": 12, "layer_norm_epsilon": 1e-06, "dtype": "float32",
      "id2label": {"0": "a"}, "relative_attention_num_buckets": 32, "eos_token_id": null, "dense_act_fn": "relu")");
  std::uint32_t random = 1;
  auto const next = [&random](std::size_t below) {
    random = random * 1664525U + 1013904223U;
    return static_cast<std::size_t>(random >> 8) % below;
  };
  std::string const alphabet = "0123456789-.eE{}[]\",: nulltrue";
  for (int round = 0; round < 5000; ++round) {
    std::string text = good;
    for (std::size_t edit = next(4) + 1; edit > 0; --edit) {
      std::size_t const at = next(text.size());
      std::size_t const kind = next(3);
      if (kind == 0) text[at] = alphabet[next(alphabet.size())];
      if (kind == 1) text.erase(at, next(8) + 1);
      if (kind == 2) text.insert(at, 1, alphabet[next(alphabet.size())]);
      if (text.empty()) break;
    }
    auto const config = parse_switch_config(text, "config.json");
    if (config) {
      EXPECT_LE(config->moe_layers(), config->num_layers);
      EXPECT_GT(config->layer_norm_epsilon, 0);
    } else {
      EXPECT_NE(config.message().find("config.json"), std::string::npos) << config.message();
    }
  }
}

struct BadConfig {
  char const* name;
  std::string text;
  Errc code;
  char const* part;  // of the message
  friend std::ostream& operator<<(std::ostream& out, BadConfig const& config) { return out << config.text; }
};

class SwitchConfigRejects : public ::testing::TestWithParam<BadConfig> {};

TEST_P(SwitchConfigRejects, NamingFileAndKey) {
  auto const config = parse_switch_config(GetParam().text, "some/config.json");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.code(), GetParam().code) << config.message();
  EXPECT_NE(config.message().find("some/config.json"), std::string::npos) << config.message();
  EXPECT_NE(config.message().find(GetParam().part), std::string::npos) << config.message();
}

std::vector<BadConfig> bad_configs() {
  return {
      {"Empty", "", Errc::corrupt, "JSON"},
      {"NotJson", "model: switch", Errc::corrupt, "JSON"},
      {"CutShort", R"({"model_type": "switch_transformers", "d_model": 76)", Errc::corrupt, "JSON"},
      {"NotAnObject", "[1, 2]", Errc::corrupt, "object"},
      {"KeyTwice", config_with(R"("d_ff": 1, "d_ff": 2)"), Errc::corrupt, "d_ff"},
      {"NoModelType", R"({"d_model": 768})", Errc::not_found, "model_type"},
      {"OtherModelType", R"({"model_type": "t5"})", Errc::unsupported, "model_type"},
      {"ModelTypeNumber", R"({"model_type": 5})", Errc::corrupt, "model_type"},
      {"Negative", config_with(R"("d_model": -768)"), Errc::corrupt, "d_model"},
      {"Zero", config_with(R"("num_heads": 0)"), Errc::corrupt, "num_heads"},
      {"Fraction", config_with(R"("d_kv": 64.5)"), Errc::corrupt, "d_kv"},
      {"WholeFraction", config_with(R"("d_kv": 64.0)"), Errc::corrupt, "d_kv"},
      {"Beyond32Bits", config_with(R"("num_layers": 4294967297)"), Errc::corrupt, "num_layers"},
      {"Beyond64Bits", config_with(R"("d_ff": 18446744073709551616)"), Errc::corrupt, "d_ff"},
      {"HugeExponent", config_with(R"("d_ff": 1e300)"), Errc::corrupt, "d_ff"},
      {"Text", config_with(R"("num_experts": "8")"), Errc::corrupt, "num_experts"},
      {"Bool", config_with(R"("num_experts": true)"), Errc::corrupt, "num_experts"},
      {"Null", config_with(R"("encoder_sparse_step": null)"), Errc::corrupt, "encoder_sparse_step"},
      {"List", config_with(R"("eos_token_id": [1])"), Errc::corrupt, "eos_token_id"},
      {"TooManyExperts", config_with(R"("num_experts": 65536)"), Errc::corrupt, "num_experts"},
      {"HugeVocabulary", config_with(R"("vocab_size": 1000000000)"), Errc::corrupt, "vocab_size"},
      {"HugeInner", config_with(R"("num_heads": 4096, "d_kv": 1048576)"), Errc::corrupt, "d_kv"},
      {"NegativeStep", config_with(R"("encoder_sparse_step": -1)"), Errc::corrupt, "encoder_sparse_step"},
      {"NegativeSparse", config_with(R"("num_sparse_encoder_layers": -1)"), Errc::corrupt, "num_sparse_encoder_layers"},
      {"NegativeCapacity", config_with(R"("expert_capacity": -1)"), Errc::corrupt, "expert_capacity"},
      {"FewBuckets", config_with(R"("relative_attention_num_buckets": 3)"), Errc::corrupt, "num_buckets"},
      {"ShortDistance", config_with(R"("relative_attention_max_distance": 8)"), Errc::corrupt, "max_distance"},
      {"NoLabels", config_with(R"("num_labels": 0)"), Errc::corrupt, "num_labels"},
      {"EmptyLabels", config_with(R"("id2label": {})"), Errc::corrupt, "id2label"},
      {"LabelList", config_with(R"("id2label": ["a"])"), Errc::corrupt, "id2label"},
      {"IdBeyondVocabulary", config_with(R"("vocab_size": 10, "pad_token_id": 10)"), Errc::corrupt, "pad_token_id"},
      {"NegativeEpsilon", config_with(R"("layer_norm_epsilon": -1e-6)"), Errc::corrupt, "layer_norm_epsilon"},
      {"EpsilonText", config_with(R"("layer_norm_epsilon": "small")"), Errc::corrupt, "layer_norm_epsilon"},
      {"EpsilonBelowFloat", config_with(R"("layer_norm_epsilon": 1e-300)"), Errc::corrupt, "layer_norm_epsilon"},
      {"RouterBias", config_with(R"("router_bias": true)"), Errc::unsupported, "router_bias"},
      {"RouterDtype", config_with(R"("router_dtype": "bfloat16")"), Errc::unsupported, "router_dtype"},
      {"TopTwo", config_with(R"("num_selected_experts": 2)"), Errc::unsupported, "num_selected_experts"},
      {"Gated", config_with(R"("feed_forward_proj": "gated-gelu")"), Errc::unsupported, "feed_forward_proj"},
      {"GatedFlag", config_with(R"("is_gated_act": true)"), Errc::unsupported, "is_gated_act"},
      {"GatedFunction", config_with(R"("dense_act_fn": "gated-gelu")"), Errc::unsupported, "dense_act_fn"},
      {"OtherFunction", config_with(R"("dense_act_fn": "gelu_new")"), Errc::unsupported, "dense_act_fn"},
      {"OtherProjection", config_with(R"("feed_forward_proj": "silu")"), Errc::unsupported, "feed_forward_proj"},
      {"OtherDtype", config_with(R"("dtype": "float64")"), Errc::unsupported, "dtype"},
      {"OtherTorchDtype", config_with(R"("torch_dtype": "int8")"), Errc::unsupported, "torch_dtype"},
  };
}

INSTANTIATE_TEST_SUITE_P(Table, SwitchConfigRejects, ::testing::ValuesIn(bad_configs()),
                         [](auto const& bad) { return std::string(bad.param.name); });

}  // namespace
}  // namespace sida
