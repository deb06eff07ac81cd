#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.hpp"
#include "cli/dataset.hpp"
#include "cli/run_setup.hpp"
#include "sida/core/result.hpp"
#include "sida/route/token_batch.hpp"

namespace CLI {
class App;
}

namespace sida::cli {

/// What to answer.
struct InputOptions {
  std::string data;
  std::vector<std::string> texts;
  std::string dash;  ///< "-" when standard input is to be read
  std::uint64_t batch = 1;
};

/// Declares --data, --text, - and --batch.
void add_input_options(CLI::App& app, InputOptions& options);
/// Exactly one kind of input. Throws CLI::ValidationError.
void check_input_options(InputOptions const& options);

/// All inputs of a run, in order.
struct InputRows {
  std::string name;  ///< for messages
  std::vector<Row> rows;
};

/// Reads all inputs. @return not_found, io, corrupt; cancelled; unsupported for text where `served` has no tokenizer.
Result<InputRows> read_inputs(InputOptions const& options, ServedModel const& served, Session const& session);

/// That the model can give every label that `input` has. @return corrupt, naming file and line.
Status require_labels(InputRows const& input, SwitchConfig const& config);

/// Consecutive rows as batches of token ids, tokenised as they are asked for. A `BatchSource`. Refers to its
/// arguments. A row of less than `pad_to` tokens is filled up with padding, which is then computed like any token.
class InputBatches {
 public:
  InputBatches(InputRows const& input, ServedModel const& served, std::uint64_t batch, std::uint64_t pad_to = 0);

  /// @return corrupt, naming file and line, for an id outside of the model's vocabulary; what the tokenizer returns.
  Result<std::optional<TokenBatch>> next();
  /// Rows in all.
  std::uint64_t inputs() const noexcept { return input_->rows.size(); }

 private:
  Result<std::vector<std::int32_t>> tokenize(Row const& row) const;

  InputRows const* input_;
  ServedModel const* served_;
  std::uint64_t batch_;
  std::uint64_t pad_to_;
  std::uint64_t number_ = 0;
  std::size_t next_row_ = 0;
};

}  // namespace sida::cli
