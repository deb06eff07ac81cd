#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "sida/model/switch_config.hpp"

/// What is accepted are sizes that the code behind it may multiply, and ids within the vocabulary.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  std::string_view const text(reinterpret_cast<char const*>(data), size);
  auto const config = sida::parse_switch_config(text, "fuzz");
  if (!config) {
    if (config.message().find("fuzz") == std::string_view::npos) std::abort();  // a message names the file
    return 0;
  }
  auto const holds = [](bool promise) {
    if (!promise) std::abort();
  };
  for (auto const width : {config->vocab_size, config->d_model, config->d_kv, config->d_ff, config->num_heads,
                           config->inner_dim(), config->num_labels}) {
    holds(width >= 1 && width <= std::int64_t{1} << 24);
  }
  holds(config->num_layers >= 1 && config->num_experts >= 1 && config->expert_capacity >= 0);
  holds(config->layer_norm_epsilon > 0 && config->layer_norm_epsilon <= 1);
  holds(config->pad_token_id >= 0 && config->pad_token_id < config->vocab_size);
  holds(config->eos_token_id >= 0 && config->eos_token_id < config->vocab_size);
  holds(config->relative_attention_max_distance > config->relative_attention_num_buckets / 4);
  holds(config->moe_layers() <= config->num_layers);
  return 0;
}
