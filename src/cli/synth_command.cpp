#include <array>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <CLI/CLI.hpp>

#include "cli/command.hpp"
#include "cli/interrupt.hpp"
#include "cli/options.hpp"
#include "cli/output_file.hpp"
#include "cli/progress.hpp"
#include "cli/report.hpp"
#include "cli/small_file.hpp"
#include "cli/synth_tensors.hpp"
#include "cli/synth_writer.hpp"
#include "io/json.hpp"
#include "sida/detail/try.hpp"
#include "sida/io/file.hpp"

namespace sida::cli {
namespace {

constexpr std::uint64_t kMaxConfigBytes = std::uint64_t{16} << 20;
// About what fits the 100 MB that a safetensors header may have.
constexpr std::uint64_t kMaxExperts = std::uint64_t{1} << 18;

constexpr char kForeignWeights[] =
    ": weights that \"sida synth\" did not write: give another folder, or remove them first";
constexpr char kForeignFile[] =
    ": \"sida synth\" would replace this and did not write it: give another folder, or remove it first";

Result<SwitchConfig> read_shape(std::string const& text, std::string const& path) {
  SIDA_TRY_ASSIGN(auto const config, parse_switch_config(text, path));
  std::uint64_t const experts = std::uint64_t{config.moe_layers()} * config.num_experts;
  if (experts == 0) return Error(Errc::unsupported, path + ": no sparse block in the encoder");
  if (experts > kMaxExperts) {
    return Error(Errc::unsupported,
                 path + ": " + std::to_string(experts) + " experts, more than " + std::to_string(kMaxExperts));
  }
  return config;
}

/// The shape's config.json, said of an encoder with a head in `dtype`.
Result<std::string> adapt_config(std::string const& text, std::string const& path, SwitchConfig const& config,
                                 Dtype dtype) {
  SIDA_TRY_ASSIGN(auto root, io_detail::parse_json(text, path));
  root["architectures"] = {"SwitchTransformersEncoderModel"};
  root["dtype"] = dtype == Dtype::f32 ? "float32" : "bfloat16";
  root.erase("torch_dtype");  // the older name of "dtype"
  root["num_labels"] = config.num_labels;
  return root.dump(2) + "\n";
}

Status check_space(std::filesystem::path const& folder, std::uint64_t bytes) {
  std::error_code error;
  auto const space = std::filesystem::space(folder, error);
  if (error || space.available >= bytes) return {};  // whoever cannot tell will see when writing
  return {Errc::io,
          folder.string() + ": needs " + format_bytes(bytes) + ", but " + format_bytes(space.available) + " are free"};
}

bool exists(std::string const& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

/// Names that a checkpoint's weights have in Hugging Face's form, but for the one that this command writes.
bool is_foreign_weights(std::string_view name) {
  return (name.starts_with("pytorch_model") && (name.ends_with(".bin") || name.ends_with(".bin.index.json"))) ||
         (name.starts_with("model-") && name.ends_with(".safetensors") && name.find("-of-") != name.npos) ||
         name == "model.safetensors.index.json";
}

/// That `folder` holds no weights but such as a run of this command wrote.
Status check_weights(std::filesystem::path const& folder) {
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (!is_foreign_weights(entry->path().filename().string())) continue;
    return {Errc::invalid_argument, entry->path().string() + kForeignWeights};
  }
  std::string const weights = (folder / "model.safetensors").string();
  if (!exists(weights)) return {};
  SIDA_TRY_ASSIGN(auto const file, File::open(weights, ReadPath::pread));
  constexpr std::uint64_t kLengthBytes = 8;
  std::string start(kSynthHeaderStart.size(), '\0');
  if (file->size_bytes() >= kLengthBytes + start.size()) {
    SIDA_TRY(file->read_at(kLengthBytes, std::as_writable_bytes(std::span(start))));
  }
  if (start == kSynthHeaderStart) return {};
  return {Errc::invalid_argument, weights + kForeignWeights};
}

/// That what goes beside the weights replaces nothing but what came with weights of this command: those are published
/// first, so without them it is somebody else's.
Status check_beside(std::filesystem::path const& folder, bool has_tokenizer) {
  if (exists((folder / "model.safetensors").string())) return {};
  for (auto const* const name : {"config.json", "spiece.model"}) {
    std::string const path = (folder / name).string();
    bool const is_written = has_tokenizer || name == std::string_view("config.json");
    if (is_written && exists(path)) return {Errc::invalid_argument, path + kForeignFile};
  }
  return {};
}

/// Makes a folder, and removes it again if this made it and nothing was kept.
class NewFolder {
 public:
  static Result<NewFolder> create(std::filesystem::path path) {
    std::error_code error;
    bool const is_new = std::filesystem::create_directories(path, error);
    if (error) return Error(Errc::io, path.string() + ": cannot create folder: " + error.message());
    return NewFolder(std::move(path), is_new);
  }
  NewFolder(NewFolder&& other) noexcept
      : path_(std::move(other.path_)), owned_(std::exchange(other.owned_, false)), guard_(std::move(other.guard_)) {}
  NewFolder& operator=(NewFolder&&) = delete;
  ~NewFolder() {
    std::error_code ignored;
    if (owned_) std::filesystem::remove(path_, ignored);  // fails on what isn't empty
  }

  std::filesystem::path const& path() const noexcept { return path_; }
  std::string file(char const* name) const { return (path_ / name).string(); }

 private:
  NewFolder(std::filesystem::path path, bool owned) : path_(std::move(path)), owned_(owned) {
    if (owned_) guard_ = RemovedWhenKilled(path_.string());
  }
  std::filesystem::path path_;
  bool owned_;
  RemovedWhenKilled guard_;
};

Result<OutputFile> write_file(std::string const& path, std::string const& content) {
  SIDA_TRY_ASSIGN(auto file, OutputFile::create(path));
  SIDA_TRY(file.write(content));
  return file;
}

std::vector<std::pair<std::string, Dtype>> const kDtypes = {{"bf16", Dtype::bf16}, {"fp32", Dtype::f32}};

class SynthCommand final : public Command {
 public:
  std::string name() const override { return "synth"; }
  std::string summary() const override { return "Make a checkpoint of a real shape with random weights"; }
  std::string manual() const override;
  void add_options(CLI::App& app) override;
  Status run(Session& session) override;

 private:
  Status write_weights(SwitchConfig const& config, NewFolder const& folder, OutputFile& file, Session& session);

  std::string config_path_;
  std::string out_;
  std::string tokenizer_path_;
  Dtype dtype_ = Dtype::bf16;
  std::uint64_t seed_ = 0;
  std::uint64_t threads_ = std::max(1U, std::thread::hardware_concurrency());
  std::uint64_t written_bytes_ = 0;
};

std::string SynthCommand::manual() const {
  return R"(Writes model.safetensors and config.json, and spiece.model with --tokenizer, to
the folder DIR: the encoder of a Switch Transformer with a classification head,
under the names that Hugging Face uses. What an earlier run wrote there is
replaced. Where there are weights from elsewhere, or a config.json or
spiece.model that no run wrote, nothing is. The answers mean nothing, but the
sizes, the routing and so the traffic between disk and memory are like those of
a trained model: experts are used unevenly, and equal words mostly go to equal
experts.

Equal shape, type and seed give equal bytes. Weights are made while they are
written and never held in memory.

Exit status: 0; 1 for data, I/O, and a model in DIR from elsewhere; 2 for
malformed or negative values and unknown options; 130 when interrupted.)";
}

void SynthCommand::add_options(CLI::App& app) {
  add_path(app, "--config", config_path_, "config.json of a Switch Transformer: the shape")->required();
  add_path(app, "--out", out_, "Folder to write to; made if it isn't there")->required()->type_name("DIR");
  add_choice(app, "--dtype", dtype_, kDtypes, "Element type");
  add_number(app, "--seed", seed_, {0, std::numeric_limits<std::uint64_t>::max()}, "Seed of the weights");
  add_path(app, "--tokenizer", tokenizer_path_, "SentencePiece model to put beside the weights");
  add_number(app, "--threads", threads_, {1, 1024}, "Threads that make weights; the bytes don't depend on it");
}

Status SynthCommand::write_weights(SwitchConfig const& config, NewFolder const& folder, OutputFile& file,
                                   Session& session) {
  auto const tensors = plan_switch_tensors(config, seed_);
  for (auto const& tensor : tensors) written_bytes_ += tensor.size_bytes(dtype_);
  SIDA_TRY(check_space(folder.path(), written_bytes_));
  WorkerPool pool(threads_);
  Progress progress(session.has_terminal(), "writing", "bytes");
  SynthCallbacks const callbacks{
      .progress = [&](std::uint64_t done, std::uint64_t total) { progress.update(done, total); },
      .cancelled = [&] { return session.stopped(); }};
  return write_synth_tensors(tensors, dtype_, pool, callbacks, file);
}

Status SynthCommand::run(Session& session) {
  SIDA_TRY_ASSIGN(auto const config_text, read_small_file(config_path_, kMaxConfigBytes));
  SIDA_TRY_ASSIGN(auto const config, read_shape(config_text, config_path_));
  SIDA_TRY_ASSIGN(auto const adapted, adapt_config(config_text, config_path_, config, dtype_));
  std::string tokenizer;
  if (!tokenizer_path_.empty()) {
    SIDA_TRY_ASSIGN(tokenizer, read_tokenizer_file(tokenizer_path_, config));
  }
  SIDA_TRY(check_weights(out_));
  SIDA_TRY_ASSIGN(auto const folder, NewFolder::create(out_));
  SIDA_TRY(require_apart(std::array{folder.file("config.json"), folder.file("spiece.model")},
                         std::array{config_path_, tokenizer_path_}));
  SIDA_TRY(check_beside(folder.path(), !tokenizer.empty()));
  SIDA_TRY_ASSIGN(auto weights, OutputFile::create(folder.file("model.safetensors")));
  SIDA_TRY(write_weights(config, folder, weights, session));
  SIDA_TRY_ASSIGN(auto config_file, write_file(folder.file("config.json"), adapted));
  std::optional<OutputFile> tokenizer_file;
  if (!tokenizer.empty()) {
    SIDA_TRY_ASSIGN(tokenizer_file, write_file(folder.file("spiece.model"), tokenizer));
  }
  SIDA_TRY(weights.finish());
  if (tokenizer_file) SIDA_TRY(tokenizer_file->finish());
  SIDA_TRY(config_file.finish());
  SIDA_TRY(print(out_ + ": " + std::to_string(config.moe_layers()) + " MoE layers of " +
                 std::to_string(config.num_experts) + " experts, " + format_bytes(written_bytes_) + " of weights\n"));
  // No config while the others change, an old one neither: without it nobody takes the folder for a checkpoint.
  SIDA_TRY(config_file.remove_old());
  SIDA_TRY(weights.publish());
  if (tokenizer_file) SIDA_TRY(tokenizer_file->publish());
  return config_file.publish();
}

}  // namespace

std::unique_ptr<Command> make_synth_command() { return std::make_unique<SynthCommand>(); }

}  // namespace sida::cli
