#include "cli/run_input.hpp"

#include <algorithm>
#include <utility>

#include <CLI/CLI.hpp>

#include "sida/detail/try.hpp"
#include "sida/runtime/pipeline.hpp"

namespace sida::cli {

static_assert(BatchSource<InputBatches>);

void add_input_options(CLI::App& app, InputOptions& options) {
  add_path(app, "--data", options.data, "Inputs: a TSV or JSONL file");
  app.add_option("--text", options.texts, "One input; may be given several times")
      ->type_name("TEXT")
      ->expected(1)
      ->take_all();
  app.add_option("input", options.dash, "\"-\": read standard input, as --data reads a file")->option_text("[-]");
  add_number(app, "--batch", options.batch, {1, 65536}, "Sequences that are computed together, in input order");
}

void check_input_options(InputOptions const& options) {
  // Not earlier: where it is the value of an option that there isn't, that option is what the parser names.
  if (!options.dash.empty() && options.dash != "-") {
    throw CLI::ValidationError("input", "'" + options.dash + "' is unexpected: files are given by --data");
  }
  int const given = (options.data.empty() ? 0 : 1) + (options.texts.empty() ? 0 : 1) + (options.dash.empty() ? 0 : 1);
  if (given != 1) throw CLI::ValidationError("input", "give one of --data FILE, --text TEXT and -");
}

Result<InputRows> read_inputs(InputOptions const& options, ServedModel const& served, Session const& session) {
  InputRows input;
  if (!options.texts.empty()) {
    input.name = "--text";
    for (std::size_t i = 0; i < options.texts.size(); ++i) {
      Row row;
      row.text_a = options.texts[i];
      row.line = i + 1;
      SIDA_TRY(check_text(row, input.name + ":" + std::to_string(row.line)));
      input.rows.push_back(std::move(row));
    }
  } else {
    Dataset::Options reading;
    reading.cancelled = [&session] { return session.stopped(); };
    SIDA_TRY_ASSIGN(auto dataset, Dataset::open(options.dash.empty() ? options.data : options.dash, reading));
    input.name = dataset.name();
    for (;;) {
      if (session.stopped()) return Session::interrupted().error();
      SIDA_TRY_ASSIGN(auto row, dataset.next());
      if (!row) break;
      input.rows.push_back(*std::move(row));
    }
  }
  auto const text = std::ranges::find_if(input.rows, [](Row const& row) { return !row.ids; });
  if (text != input.rows.end() && !served.tokenizer) {
    return Error(Errc::unsupported, input.name + ":" + std::to_string(text->line) + ": text needs a tokenizer, and " +
                                        served.checkpoint.path + " has none; give token ids as {\"ids\": [...]}");
  }
  return input;
}

Status require_labels(InputRows const& input, SwitchConfig const& config) {
  for (Row const& row : input.rows) {
    if (row.label.value_or(0) < config.num_labels) continue;
    return {Errc::corrupt, input.name + ":" + std::to_string(row.line) + ": label " + std::to_string(*row.label) +
                               ", but the model has " + std::to_string(config.num_labels) + ", from 0"};
  }
  return {};
}

InputBatches::InputBatches(InputRows const& input, ServedModel const& served, std::uint64_t batch, std::uint64_t pad_to)
    : input_(&input), served_(&served), batch_(batch), pad_to_(pad_to) {}

Result<std::vector<std::int32_t>> InputBatches::tokenize(Row const& row) const {
  if (row.ids) return *row.ids;
  if (row.text_b) return served_->tokenizer->encode_pair(row.text_a, *row.text_b);
  return served_->tokenizer->encode(row.text_a);
}

Result<std::optional<TokenBatch>> InputBatches::next() {
  auto const& rows = input_->rows;
  if (next_row_ == rows.size()) return std::optional<TokenBatch>();
  TokenBatch batch;
  batch.number = number_++;
  std::int64_t const vocabulary = served_->checkpoint.config.vocab_size;
  for (std::uint64_t i = 0; i < batch_ && next_row_ < rows.size(); ++i, ++next_row_) {
    Row const& row = rows[next_row_];
    std::string const place = input_->name + ":" + std::to_string(row.line);
    auto ids = tokenize(row);
    if (!ids) return std::move(ids).error().with_context(place);
    for (std::int32_t const id : *ids) {
      if (id >= 0 && id < vocabulary) continue;
      return Error(Errc::corrupt, place + ": token id " + std::to_string(id) +
                                      " is outside of the model's vocabulary of " + std::to_string(vocabulary));
    }
    if (ids->size() < pad_to_) ids->resize(pad_to_, served_->checkpoint.config.pad_token_id);
    batch.append(*ids);
  }
  return std::optional<TokenBatch>(std::move(batch));
}

}  // namespace sida::cli
