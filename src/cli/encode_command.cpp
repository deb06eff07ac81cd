#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include <CLI/CLI.hpp>

#include "cli/command.hpp"
#include "cli/npy.hpp"
#include "cli/output_file.hpp"
#include "cli/progress.hpp"
#include "cli/report.hpp"
#include "cli/run_batches.hpp"
#include "cli/run_input.hpp"
#include "cli/run_setup.hpp"
#include "sida/detail/try.hpp"

namespace sida::cli {
namespace {

constexpr char kEncodeManual[] =
    R"(Writes the encoder's final hidden states as float32: the tokens of all inputs
one after the other, [tokens, d_model]; with --pool mean one row per input, the
mean over its tokens. Needs no classification head, and for inputs that are
token ids no tokenizer.

Input: as for "sida classify". The file appears when the run has succeeded.

Exit status: 0; 1 for data, I/O, and a budget too small for one expert; 2 for
malformed or negative values and unknown options; 130 when interrupted.)";

enum class Pool : std::uint8_t { none, mean };

std::vector<std::pair<std::string, Pool>> const kPools = {{"none", Pool::none}, {"mean", Pool::mean}};

struct EncodeOptions {
  ServeOptions serve;
  InputOptions input;
  Pool pool = Pool::none;
  std::string out;
  bool quiet = false;
};

/// Writes each batch as it is done.
class EncodeObserver {
 public:
  EncodeObserver(NpyWriter& out, Pool pool, std::uint64_t inputs, Progress& progress)
      : out_(&out), pool_(pool), inputs_(inputs), progress_(&progress) {}

  void started(TokenBatch const&) {}
  void routed(TokenBatch const&, std::uint32_t, Routing<>) {}
  Status finished(TokenBatch const& batch, SwitchEncoder::State& state) {
    Matrix<float const> const rows = pool_ == Pool::mean ? state.pooled() : state.hidden();
    for (std::int64_t r = 0; r < rows.rows; ++r) SIDA_TRY(out_->append(rows.row(r)));
    done_ += static_cast<std::uint64_t>(batch.sequences());
    progress_->update(done_, inputs_);
    return {};
  }

 private:
  NpyWriter* out_;
  Pool pool_;
  std::uint64_t inputs_;
  std::uint64_t done_ = 0;
  Progress* progress_;
};

class EncodeCommand final : public Command {
 public:
  std::string name() const override { return "encode"; }
  std::string summary() const override { return "Write the hidden states of a Switch encoder, under a memory budget"; }
  std::string manual() const override { return kEncodeManual; }

  void add_options(CLI::App& app) override {
    add_serve_options(app, options_.serve);
    add_input_options(app, options_.input);
    add_choice(app, "--pool", options_.pool, kPools, "What one row is made of");
    add_path(app, "--out", options_.out, "The .npy file to write")->required();
    app.add_flag("--quiet", options_.quiet, "No summary and no progress bar");
  }

  void check() const override {
    check_serve_options(options_.serve);
    check_input_options(options_.input);
  }

  Status run(Session& session) override {
    SIDA_TRY(require_apart(std::array{options_.out}, std::array{options_.serve.model, options_.input.data}));
    options_.serve.outputs_hidden = options_.pool != Pool::mean;
    options_.serve.stop = session.stop();
    SIDA_TRY_ASSIGN(auto served, ServedModel::open(options_.serve));
    SIDA_TRY_ASSIGN(auto const input, read_inputs(options_.input, *served, session));
    auto const d_model = static_cast<std::uint64_t>(served->checkpoint.config.d_model);
    SIDA_TRY_ASSIGN(auto out, NpyWriter::create(options_.out, NpyType::f32, {d_model}));
    {
      Progress progress(session.has_terminal() && !options_.quiet, "encoding", "sequences");
      EncodeObserver observer(out, options_.pool, input.rows.size(), progress);
      NoPredictor predictor;
      SIDA_TRY(run_batches(*served, predictor, InputBatches(input, *served, options_.input.batch), observer,
                           PipelineOptions{}, session));
    }
    std::uint64_t const rows = out.rows();
    SIDA_TRY(out.finish());
    if (!options_.quiet) {
      Table table;
      table.row("sequences", std::to_string(input.rows.size()));
      table.row("rows", std::to_string(rows) + " of " + std::to_string(d_model) + " numbers, in " + options_.out);
      table.row("experts read", format_bytes(served->store->stats().bytes_loaded));
      SIDA_TRY(print(table.text()));
    }
    return out.publish();
  }

 private:
  EncodeOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_encode_command() { return std::make_unique<EncodeCommand>(); }

}  // namespace sida::cli
