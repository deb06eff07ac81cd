#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/core/result.hpp"
#include "sida/io/expert_source.hpp"
#include "sida/io/file.hpp"
#include "sida/io/tensor_source.hpp"
#include "sida/model/switch_config.hpp"

namespace sida::inline v0 {

/// A Switch encoder on disk, opened but not read: its config, and where its weights are. Copies share the sources.
struct SwitchCheckpoint {
  std::string path;  ///< the folder or the container
  SwitchConfig config;
  std::string config_json;  ///< the text that `config` was parsed from
  std::string tokenizer;    ///< bytes of a SentencePiece model, or empty
  bool has_head = false;    ///< whether there is a classification head
  ExpertLayout layout;      ///< of every expert; all have one element type
  /// Everything but the experts; each tensor may have a type of its own. May hold more than `dense_names`.
  std::shared_ptr<TensorSource const> dense;
  std::shared_ptr<ExpertSource const> experts;
  std::vector<std::string> dense_names;  ///< the tensors of `dense` that encoder and head need, each once

  /// Bytes on disk of `dense_names`.
  SIDA_API std::uint64_t dense_bytes() const noexcept;
  std::uint64_t expert_count() const noexcept {
    return std::uint64_t{config.moe_layers()} * std::uint64_t{config.num_experts};
  }
  /// Bytes on disk of all experts, without the padding of their records.
  std::uint64_t expert_bytes() const noexcept { return expert_count() * 2 * layout.matrix_bytes(); }
};

/// Opens a Switch encoder: a container written by `pack_switch_checkpoint`, or a folder in Hugging Face's form with
/// config.json, model.safetensors (or shards and their index) and, if there is one, the tokenizer spiece.model.
/// The encoder may stand alone or within the whole model, whose decoder is ignored; names may have the prefix
/// "switch_transformers."; the embedding is `shared.weight` or, without it, `encoder.embed_tokens.weight`; the head is
/// `classification_head.dense` and `.out_proj`, weight and bias each.
/// @return not_found: a file or tensor that is missing; corrupt: among others a tensor of another shape than the
/// config implies, naming both; unsupported: a variant, an element type, or a model without sparse blocks; io.
SIDA_API Result<SwitchCheckpoint> open_switch_checkpoint(std::string const& path, ReadPath read_path);

/// What `pack_switch_checkpoint` may be told. All may be empty.
struct SwitchPackOptions {
  std::string tokenizer;  ///< bytes of a SentencePiece model, in place of the checkpoint's own
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress;
  std::function<bool()> cancelled;                                 ///< asked between records
  std::function<void(std::string const& temporary)> started = {};  ///< as in `PackInput`
  std::function<Status(std::uint64_t file_bytes)> written = {};    ///< as in `PackInput`
};

/// Writes `checkpoint` as a packed container, atomically: on failure `out_path` is as it was.
/// @return io, corrupt, cancelled.
SIDA_API Status pack_switch_checkpoint(SwitchCheckpoint const& checkpoint, std::string const& out_path,
                                       SwitchPackOptions const& options = {});

}  // namespace sida::inline v0
