#include <limits>
#include <utility>

#include "cli/dataset_rows.hpp"
#include "io/json.hpp"
#include "sida/detail/try.hpp"

namespace sida::cli {
namespace {

using io_detail::find_member;
using io_detail::Json;

constexpr io_detail::JsonLimits kLimits{.max_bytes = kMaxLineBytes};

Result<std::optional<std::int32_t>> read_label(Json const& object, std::string const& where) {
  Json const* const value = find_member(object, "label");
  if (value == nullptr) return std::optional<std::int32_t>();
  SIDA_TRY_ASSIGN(auto const label, io_detail::as_uint(*value, where + ": label"));
  if (label >= static_cast<std::uint64_t>(kMaxLabels)) {
    return Error(Errc::corrupt,
                 where + ": label " + std::to_string(label) + " is not within 0 and " + std::to_string(kMaxLabels - 1));
  }
  return std::optional(static_cast<std::int32_t>(label));
}

Result<std::vector<std::int32_t>> read_ids(Json const& array, std::string const& where) {
  if (!array.is_array()) return Error(Errc::corrupt, where + ": 'ids' is not an array but " + array.type_name());
  if (array.empty()) return Error(Errc::corrupt, where + ": 'ids' is empty");
  std::vector<std::int32_t> ids;
  ids.reserve(array.size());
  for (auto const& value : array) {
    SIDA_TRY_ASSIGN(auto const id, io_detail::as_uint(value, where + ": id"));
    if (id > static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max())) {
      return Error(Errc::corrupt, where + ": id " + std::to_string(id) + " is out of range");
    }
    ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}

/// The array `key` of `object`.
Result<Json const*> require_array(Json const& object, std::string_view key, std::string const& where) {
  Json const* const value = find_member(object, key);
  if (value != nullptr && value->is_array()) return value;
  return Error(Errc::corrupt, where + ": no array '" + std::string(key) + "'");
}

class JsonlParser final : public RowParser {
 public:
  Status feed(std::string& line, std::string const& where, std::size_t number) override {
    where_ = where;
    number_ = number;
    SIDA_TRY_ASSIGN(line_, io_detail::parse_json(line, where_, kLimits));
    if (!line_.is_object()) return {Errc::corrupt, where_ + ": not a JSON object but " + line_.type_name()};
    question_ = answer_ = 0;
    has_line_ = true;
    return {};
  }

  bool skips(std::string_view) const override { return true; }

  Result<std::optional<Row>> next() override {
    if (!has_line_) return std::optional<Row>();
    if (find_member(line_, "passage") != nullptr) return next_answer();
    has_line_ = false;
    return only_row();
  }

 private:
  Result<std::optional<Row>> only_row() const {
    Row row;
    row.line = number_;
    if (Json const* const ids = find_member(line_, "ids"); ids != nullptr) {
      SIDA_TRY_ASSIGN(row.ids, read_ids(*ids, where_));
    } else if (find_member(line_, "sentence") != nullptr) {
      SIDA_TRY_ASSIGN(row.text_a, io_detail::get_string(line_, "sentence", where_));
    } else if (find_member(line_, "sentence1") != nullptr) {
      SIDA_TRY_ASSIGN(row.text_a, io_detail::get_string(line_, "sentence1", where_));
      SIDA_TRY_ASSIGN(row.text_b, io_detail::get_string(line_, "sentence2", where_));
    } else {
      return Error(Errc::corrupt, where_ + ": none of the keys 'ids', 'sentence', 'sentence1', 'passage'");
    }
    SIDA_TRY_ASSIGN(row.label, read_label(line_, where_));
    return std::optional(std::move(row));
  }

  /// MultiRC: one answer after the other. Rows are made on demand, since each repeats the passage.
  Result<std::optional<Row>> next_answer() {
    Json const& passage = line_["passage"];
    SIDA_TRY_ASSIGN(auto const* const questions, require_array(passage, "questions", where_));
    for (; question_ < questions->size(); ++question_, answer_ = 0) {
      Json const& question = (*questions)[question_];
      SIDA_TRY_ASSIGN(auto const* const answers, require_array(question, "answers", where_));
      if (answer_ == answers->size()) continue;
      Json const& answer = (*answers)[answer_++];
      Row row;
      row.line = number_;
      SIDA_TRY_ASSIGN(row.text_a, io_detail::get_string(question, "question", where_));
      SIDA_TRY_ASSIGN(auto const text, io_detail::get_string(answer, "text", where_));
      row.text_a += " " + text;
      SIDA_TRY_ASSIGN(row.text_b, io_detail::get_string(passage, "text", where_));
      SIDA_TRY_ASSIGN(row.label, read_label(answer, where_));
      return std::optional(std::move(row));
    }
    has_line_ = false;
    return std::optional<Row>();
  }

  bool has_line_ = false;
  Json line_;
  std::string where_;
  std::size_t number_ = 0;
  std::size_t question_ = 0, answer_ = 0;  // the next ones
};

}  // namespace

std::unique_ptr<RowParser> make_jsonl_parser() { return std::make_unique<JsonlParser>(); }

}  // namespace sida::cli
