#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "cli/command.hpp"
#include "cli/interrupt.hpp"
#include "cli/options.hpp"
#include "cli/output_file.hpp"
#include "cli/progress.hpp"
#include "cli/report.hpp"
#include "cli/small_file.hpp"
#include "sida/detail/try.hpp"
#include "sida/model/switch_checkpoint.hpp"

namespace sida::cli {
namespace {

class PackCommand final : public Command {
 public:
  std::string name() const override { return "pack"; }
  std::string summary() const override { return "Write a checkpoint as one container FILE.sida"; }
  std::string manual() const override {
    return R"(DIR holds config.json, model.safetensors or its shards and index, and
spiece.model if there is one. The container holds all that serving needs:
config, tokenizer, dense weights, and one record per expert, which one read
brings in; every part is under a checksum that each read verifies. FILE.sida
appears whole or not at all; one that is there is replaced.

A container holds no hash function. With one, "--prefetch hash", "--mode
predicted" and "sida fidelity" need --predictor FILE, for example DIR's
predictor.safetensors.

Exit status: 0; 1 for data and I/O; 2 for malformed values and unknown options;
130 when interrupted.)";
  }
  void add_options(CLI::App& app) override {
    add_path(app, "DIR", model_, "Checkpoint in Hugging Face's form, or a container")->required()->type_name("");
    add_path(app, "--out", out_, "Container to write")->required()->type_name("FILE.sida");
    add_path(app, "--tokenizer", tokenizer_path_, "SentencePiece model in place of the checkpoint's own");
  }
  Status run(Session& session) override;

 private:
  std::string model_;
  std::string out_;
  std::string tokenizer_path_;
};

Status PackCommand::run(Session& session) {
  SIDA_TRY_ASSIGN(auto const checkpoint, open_switch_checkpoint(model_, ReadPath::pread));
  SIDA_TRY(require_apart(std::array{out_}, std::array{model_, tokenizer_path_}));
  SwitchPackOptions options;
  if (tokenizer_path_.empty()) {
    SIDA_TRY(open_tokenizer(checkpoint).status());
  } else {
    SIDA_TRY_ASSIGN(options.tokenizer, read_tokenizer_file(tokenizer_path_, checkpoint.config));
  }
  auto progress = std::make_unique<Progress>(session.has_terminal(), "packing", "bytes");
  options.progress = [&](std::uint64_t done, std::uint64_t total) { progress->update(done, total); };
  options.cancelled = [&] { return session.stopped(); };
  RemovedWhenKilled guard;
  options.started = [&](std::string const& temporary) { guard = RemovedWhenKilled(temporary); };
  options.written = [&](std::uint64_t bytes) {
    progress.reset();  // the bar goes before the line comes
    return print(out_ + ": " + std::to_string(checkpoint.expert_count()) + " experts, " + format_bytes(bytes) + "\n");
  };
  return pack_switch_checkpoint(checkpoint, out_, options);
}

}  // namespace

std::unique_ptr<Command> make_pack_command() { return std::make_unique<PackCommand>(); }

}  // namespace sida::cli
