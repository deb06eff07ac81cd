#include "sida/model/switch_checkpoint.hpp"

#include <algorithm>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "model/switch_tensors.hpp"
#include "sida/detail/try.hpp"
#include "sida/io/packed.hpp"
#include "sida/io/safetensors.hpp"

namespace sida::inline v0 {
namespace {

using model_detail::SwitchTensors;

// Published ones are of 2 KB and of 0.8 MB.
constexpr std::uint64_t kMaxConfigBytes = std::uint64_t{16} << 20;
constexpr std::uint64_t kMaxTokenizerBytes = std::uint64_t{256} << 20;

/// The whole of a small file.
Result<std::string> read_small(std::string const& path, std::uint64_t max_bytes) {
  SIDA_TRY_ASSIGN(auto const file, File::open(path, ReadPath::pread));
  if (file->size_bytes() > max_bytes) {
    return Error(Errc::corrupt,
                 path + ": " + std::to_string(file->size_bytes()) + " bytes, more than " + std::to_string(max_bytes));
  }
  std::string text(file->size_bytes(), '\0');
  SIDA_TRY(file->read_at(0, std::as_writable_bytes(std::span(text))));
  return text;
}

Status check_has_experts(SwitchConfig const& config, std::string const& name) {
  if (config.moe_layers() > 0) return {};
  return {Errc::unsupported, name + ": no sparse block: encoder_sparse_step is " +
                                 std::to_string(config.encoder_sparse_step) + " with " +
                                 std::to_string(config.num_layers) + " layers"};
}

void take_names(SwitchTensors const& tensors, SwitchCheckpoint& checkpoint) {
  checkpoint.has_head = tensors.has_head();
  for (auto const* const tensor : tensors.all) checkpoint.dense_names.push_back(tensor->name);
}

/// All experts have the shape that the config implies and the type of the first one.
Status open_experts(SwitchCheckpoint& checkpoint, std::string const& prefix) {
  SIDA_TRY_ASSIGN(auto const names, model_detail::find_expert_names(checkpoint.config, prefix, *checkpoint.dense));
  SIDA_TRY_ASSIGN(Dtype const dtype, checkpoint.dense->dtype(*checkpoint.dense->find(names[0][0].in)));
  SIDA_TRY_ASSIGN(checkpoint.layout, ExpertLayout::of({checkpoint.config.activation, dtype, checkpoint.config.d_model,
                                                       checkpoint.config.d_ff}));
  SIDA_TRY_ASSIGN(checkpoint.experts, make_tensor_expert_source(checkpoint.dense, checkpoint.layout, names));
  return {};
}

Result<SwitchCheckpoint> open_folder(std::string const& path, ReadPath read_path) {
  std::filesystem::path const folder(path);
  SwitchCheckpoint checkpoint;
  checkpoint.path = path;
  std::string const config_path = (folder / "config.json").string();
  auto config_json = read_small(config_path, kMaxConfigBytes);
  if (config_json.code() == Errc::not_found) {
    return Error(Errc::not_found, path +
                                      ": no config.json in this folder; a model is a folder in Hugging Face's form or "
                                      "a packed container");
  }
  SIDA_TRY_ASSIGN(checkpoint.config_json, std::move(config_json));
  SIDA_TRY_ASSIGN(checkpoint.config, parse_switch_config(checkpoint.config_json, config_path));
  SIDA_TRY(check_has_experts(checkpoint.config, config_path));
  std::string const tokenizer_path = (folder / "spiece.model").string();
  if (auto tokenizer = read_small(tokenizer_path, kMaxTokenizerBytes); tokenizer) {
    checkpoint.tokenizer = *std::move(tokenizer);
  } else if (tokenizer.code() != Errc::not_found) {
    return std::move(tokenizer).error();
  }
  SIDA_TRY_ASSIGN(checkpoint.dense, open_safetensors(path, read_path));
  SIDA_TRY_ASSIGN(auto const tensors, model_detail::find_switch_tensors(checkpoint.config, *checkpoint.dense));
  take_names(tensors, checkpoint);
  SIDA_TRY(open_experts(checkpoint, tensors.prefix));
  return checkpoint;
}

Status check_container_experts(SwitchCheckpoint const& checkpoint) {
  ExpertShape const& shape = checkpoint.layout.shape;
  SwitchConfig const& config = checkpoint.config;
  if (shape.kind != config.activation || shape.d_model != config.d_model || shape.d_ff != config.d_ff) {
    return {Errc::corrupt, checkpoint.path + ": experts are " + std::string(to_string(shape.kind)) + " of " +
                               std::to_string(shape.d_model) + " x " + std::to_string(shape.d_ff) +
                               ", but the config implies " + std::string(to_string(config.activation)) + " of " +
                               std::to_string(config.d_model) + " x " + std::to_string(config.d_ff)};
  }
  auto const counts = checkpoint.experts->experts_per_layer();
  bool const same = std::ranges::all_of(counts, [&](std::uint32_t count) { return count == config.num_experts; });
  if (counts.size() == config.moe_layers() && same) return {};
  return {Errc::corrupt, checkpoint.path + ": experts of " + std::to_string(counts.size()) + " layers" +
                             (same ? "" : " and of other numbers") + ", but the config implies " +
                             std::to_string(config.num_experts) + " in each of " + std::to_string(config.moe_layers())};
}

Result<SwitchCheckpoint> open_container(std::string const& path, ReadPath read_path) {
  SIDA_TRY_ASSIGN(std::shared_ptr<PackedFile const> const file, PackedFile::open(path, read_path));
  SwitchCheckpoint checkpoint;
  checkpoint.path = path;
  checkpoint.config_json = file->config_json();
  SIDA_TRY_ASSIGN(checkpoint.config, parse_switch_config(checkpoint.config_json, path + " (config)"));
  SIDA_TRY(check_has_experts(checkpoint.config, path));
  checkpoint.tokenizer = file->tokenizer();
  checkpoint.layout = file->layout();
  checkpoint.dense = std::shared_ptr<TensorSource const>(file, &file->dense());
  checkpoint.experts = std::shared_ptr<ExpertSource const>(file, &file->experts());
  SIDA_TRY(check_container_experts(checkpoint));
  SIDA_TRY_ASSIGN(auto const tensors, model_detail::find_switch_tensors(checkpoint.config, *checkpoint.dense));
  take_names(tensors, checkpoint);
  return checkpoint;
}

}  // namespace

std::uint64_t SwitchCheckpoint::dense_bytes() const noexcept {
  std::uint64_t bytes = 0;
  for (auto const& name : dense_names) {
    TensorInfo const* const tensor = dense->find(name);
    if (tensor != nullptr) bytes += tensor->size_bytes;
  }
  return bytes;
}

Result<SwitchCheckpoint> open_switch_checkpoint(std::string const& path, ReadPath read_path) {
  std::error_code error;
  auto const type = std::filesystem::status(path, error).type();
  if (type == std::filesystem::file_type::not_found) return Error(Errc::not_found, path + ": no such file or folder");
  return type == std::filesystem::file_type::directory ? open_folder(path, read_path) : open_container(path, read_path);
}

Status pack_switch_checkpoint(SwitchCheckpoint const& checkpoint, std::string const& out_path,
                              SwitchPackOptions const& options) {
  PackInput input;
  input.config_json = checkpoint.config_json;
  input.tokenizer = options.tokenizer.empty() ? checkpoint.tokenizer : options.tokenizer;
  input.layout = checkpoint.layout;
  input.dense = checkpoint.dense.get();
  input.dense_names = checkpoint.dense_names;
  input.experts = checkpoint.experts.get();
  input.progress = options.progress;
  input.cancelled = options.cancelled;
  input.started = options.started;
  input.written = options.written;
  return write_packed(out_path, input);
}

}  // namespace sida::inline v0
