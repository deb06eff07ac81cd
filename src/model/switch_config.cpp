#include "sida/model/switch_config.hpp"

#include <cmath>
#include <string>
#include <utility>

#include "io/json.hpp"
#include "sida/detail/try.hpp"
#include "sida/route/routing.hpp"

namespace sida::inline v0 {
namespace {

using io_detail::Json;

// Far above any published model, and low enough that no product of them overflows 64 bits.
constexpr std::int64_t kMaxVocab = std::int64_t{1} << 24;
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 20;
constexpr std::int64_t kMaxHeads = std::int64_t{1} << 12;
constexpr std::int64_t kMaxLayers = std::int64_t{1} << 12;
constexpr std::int64_t kMaxExperts = kNoExpert;  // ids below kNoExpert
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 31;
constexpr std::int64_t kMaxDistance = std::int64_t{1} << 20;

/// Reads keys of the config. All absent keys keep their default; errors name file and key.
class Reader {
 public:
  Reader(Json const& root, std::string const& name) : root_(root), name_(name) {}

  template <class Int>
  Status integer(std::string_view key, Int& value, std::int64_t least, std::int64_t most) const {
    SIDA_TRY_ASSIGN(bool const has_value, present(key));
    if (!has_value) return {};
    SIDA_TRY_ASSIGN(auto const number, io_detail::get_int(root_, key, name_));
    if (number < least || number > most) {
      return error(Errc::corrupt, key,
                   std::to_string(number) + " is not within " + std::to_string(least) + " and " + std::to_string(most));
    }
    value = static_cast<Int>(number);
    return {};
  }

  Status flag(std::string_view key, bool& value) const {
    SIDA_TRY_ASSIGN(bool const has_value, present(key));
    if (has_value) {
      SIDA_TRY_ASSIGN(value, io_detail::get_bool(root_, key, name_));
    }
    return {};
  }

  Status text(std::string_view key, std::string& value) const {
    SIDA_TRY_ASSIGN(bool const has_value, present(key));
    if (has_value) {
      SIDA_TRY_ASSIGN(value, io_detail::get_string(root_, key, name_));
    }
    return {};
  }

  /// transformers takes a null in these few keys for "not given", and in no other.
  bool is_null(std::string_view key) const {
    auto const found = root_.find(key);
    return found != root_.end() && found->is_null();
  }

  Result<bool> present(std::string_view key) const {
    if (is_null(key)) return error(Errc::corrupt, key, "null");
    return root_.contains(key);
  }

  Error error(Errc code, std::string_view key, std::string_view why) const {
    return {code, name_ + ": key " + io_detail::in_quotes(key) + ": " + std::string(why)};
  }

  Json const& root() const { return root_; }
  std::string const& name() const { return name_; }

 private:
  Json const& root_;
  std::string const& name_;
};

/// What sida does not compute.
Status reject_variants(Reader const& reader) {
  SIDA_TRY_ASSIGN(std::string const model_type, io_detail::get_string(reader.root(), "model_type", reader.name()));
  if (model_type != "switch_transformers") {
    return reader.error(Errc::unsupported, "model_type",
                        io_detail::in_quotes(model_type) + ", not switch_transformers");
  }
  bool router_bias = false;
  SIDA_TRY(reader.flag("router_bias", router_bias));
  if (router_bias) return reader.error(Errc::unsupported, "router_bias", "a router with bias");
  std::string router_dtype = "float32";
  SIDA_TRY(reader.text("router_dtype", router_dtype));
  if (router_dtype != "float32") {
    return reader.error(Errc::unsupported, "router_dtype", io_detail::in_quotes(router_dtype) + ", not float32");
  }
  std::int64_t selected = 1;
  SIDA_TRY(reader.integer("num_selected_experts", selected, 0, kMaxExperts));
  if (selected != 1) return reader.error(Errc::unsupported, "num_selected_experts", std::to_string(selected));
  bool is_gated = false;
  SIDA_TRY(reader.flag("is_gated_act", is_gated));
  if (is_gated) return reader.error(Errc::unsupported, "is_gated_act", "a gated activation");
  return {};
}

/// "dense_act_fn", or in its absence the older "feed_forward_proj", which may also say that the activation is gated.
Status read_activation(Reader const& reader, SwitchConfig& config) {
  std::string projection = "relu";
  SIDA_TRY(reader.text("feed_forward_proj", projection));
  if (projection.starts_with("gated")) {
    return reader.error(Errc::unsupported, "feed_forward_proj", io_detail::in_quotes(projection) + ", gated");
  }
  std::string activation = projection;
  SIDA_TRY(reader.text("dense_act_fn", activation));
  std::string_view const key = reader.root().contains("dense_act_fn") ? "dense_act_fn" : "feed_forward_proj";
  if (activation == "relu") {
    config.activation = FfnKind::relu;
  } else if (activation == "gelu") {
    config.activation = FfnKind::gelu;
  } else {
    return reader.error(Errc::unsupported, key, io_detail::in_quotes(activation) + ", neither relu nor gelu");
  }
  return {};
}

/// transformers derives the step from num_sparse_encoder_layers, and then lets an "encoder_sparse_step" replace it. So
/// the former is not the count of sparse blocks; with 0 of them the step is num_layers, which makes block 1 sparse.
Status read_sparse_step(Reader const& reader, SwitchConfig& config) {
  std::uint32_t sparse_layers = 3;
  SIDA_TRY(reader.integer("num_sparse_encoder_layers", sparse_layers, 0, kMaxLayers));
  config.encoder_sparse_step = sparse_layers > 0 ? config.num_layers / sparse_layers : config.num_layers;
  return reader.integer("encoder_sparse_step", config.encoder_sparse_step, 0, kMaxLayers);
}

Status read_dtype(Reader const& reader, SwitchConfig& config) {
  for (std::string_view const key : {"dtype", "torch_dtype"}) {
    if (reader.is_null(key) || !reader.root().contains(key)) continue;
    std::string word;
    SIDA_TRY(reader.text(key, word));
    if (word == "float32") {
      config.dtype = Dtype::f32;
    } else if (word == "float16") {
      config.dtype = Dtype::f16;
    } else if (word == "bfloat16") {
      config.dtype = Dtype::bf16;
    } else {
      return reader.error(Errc::unsupported, key,
                          io_detail::in_quotes(word) + " is not a type that sida computes with");
    }
    return {};
  }
  return {};
}

/// "num_labels", or in its absence the number of names in "id2label".
Status read_labels(Reader const& reader, SwitchConfig& config) {
  if (auto const* const names = io_detail::find_member(reader.root(), "id2label"); names != nullptr) {
    if (!names->is_object() || names->empty()) {
      return reader.error(Errc::corrupt, "id2label", "not an object with at least one name");
    }
    config.num_labels = static_cast<std::int64_t>(names->size());
  }
  if (reader.is_null("num_labels")) return {};
  return reader.integer("num_labels", config.num_labels, 1, kMaxWidth);
}

Status read_epsilon(Reader const& reader, SwitchConfig& config) {
  constexpr std::string_view kKey = "layer_norm_epsilon";
  SIDA_TRY_ASSIGN(bool const has_value, reader.present(kKey));
  if (!has_value) return {};
  SIDA_TRY_ASSIGN(double const epsilon, io_detail::get_number(reader.root(), kKey, reader.name()));
  config.layer_norm_epsilon = static_cast<float>(epsilon);
  if (!(config.layer_norm_epsilon > 0) || epsilon > 1) return reader.error(Errc::corrupt, kKey, "not within 0 and 1");
  return {};
}

Status read_token_ids(Reader const& reader, SwitchConfig& config) {
  if (!reader.is_null("pad_token_id")) {
    SIDA_TRY(reader.integer("pad_token_id", config.pad_token_id, 0, config.vocab_size - 1));
  }
  if (reader.is_null("eos_token_id")) return {};
  return reader.integer("eos_token_id", config.eos_token_id, 0, config.vocab_size - 1);
}

/// Half of the buckets is for each direction; half of these for single distances, below max_distance.
Status read_position_buckets(Reader const& reader, SwitchConfig& config) {
  SIDA_TRY(reader.integer("relative_attention_num_buckets", config.relative_attention_num_buckets, 4, kMaxWidth));
  SIDA_TRY(reader.integer("relative_attention_max_distance", config.relative_attention_max_distance, 1, kMaxDistance));
  std::int64_t const single = config.relative_attention_num_buckets / 4;
  if (config.relative_attention_max_distance <= single) {
    return reader.error(Errc::corrupt, "relative_attention_max_distance",
                        std::to_string(config.relative_attention_max_distance) + " is too small for " +
                            std::to_string(config.relative_attention_num_buckets) + " buckets: it must exceed " +
                            std::to_string(single));
  }
  return {};
}

Status read_sizes(Reader const& reader, SwitchConfig& config) {
  SIDA_TRY(reader.integer("vocab_size", config.vocab_size, 2, kMaxVocab));
  SIDA_TRY(reader.integer("d_model", config.d_model, 1, kMaxWidth));
  SIDA_TRY(reader.integer("d_kv", config.d_kv, 1, kMaxWidth));
  SIDA_TRY(reader.integer("d_ff", config.d_ff, 1, kMaxWidth));
  SIDA_TRY(reader.integer("num_heads", config.num_heads, 1, kMaxHeads));
  SIDA_TRY(reader.integer("num_layers", config.num_layers, 1, kMaxLayers));
  SIDA_TRY(reader.integer("num_experts", config.num_experts, 1, kMaxExperts));
  SIDA_TRY(reader.integer("expert_capacity", config.expert_capacity, 0, kMaxTokens));
  if (config.inner_dim() > kMaxWidth) {
    return reader.error(
        Errc::corrupt, "d_kv",
        "num_heads * d_kv is " + std::to_string(config.inner_dim()) + ", more than " + std::to_string(kMaxWidth));
  }
  return {};
}

}  // namespace

std::uint32_t SwitchConfig::moe_layers() const noexcept {
  std::uint32_t count = 0;
  for (std::uint32_t block = 0; block < num_layers; ++block) count += is_sparse(block) ? 1 : 0;
  return count;
}

Result<SwitchConfig> parse_switch_config(std::string_view json, std::string_view name) {
  std::string const file(name);
  SIDA_TRY_ASSIGN(Json const root, io_detail::parse_json(json, file));
  if (!root.is_object()) return Error(Errc::corrupt, file + ": not a JSON object but " + root.type_name());
  Reader const reader(root, file);
  SwitchConfig config;
  SIDA_TRY(reject_variants(reader));
  SIDA_TRY(read_sizes(reader, config));
  SIDA_TRY(read_activation(reader, config));
  SIDA_TRY(read_sparse_step(reader, config));
  SIDA_TRY(read_position_buckets(reader, config));
  SIDA_TRY(read_epsilon(reader, config));
  SIDA_TRY(read_token_ids(reader, config));
  SIDA_TRY(read_labels(reader, config));
  SIDA_TRY(read_dtype(reader, config));
  return config;
}

}  // namespace sida::inline v0
