#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sida/core/result.hpp"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace sida::cli {

/// How much of the experts may be resident: bytes, or a share of all experts.
class Budget {
 public:
  /// "20%", "12.5%", "512MiB", "1.5GB", or a bare number of bytes. Units: B, KB, MB, GB, TB (powers of 1000), KiB,
  /// MiB, GiB, TiB. Nothing else is accepted: no sign, no blanks, no exponent, no more than 100 %.
  static Result<Budget> parse(std::string_view text);

  /// The bytes of `experts` experts of `slot_bytes` that this allows: floor(N/100 × experts) slots, at least one, for
  /// N %; for bytes, those bytes.
  std::uint64_t bytes(std::uint64_t experts, std::uint64_t slot_bytes) const;

 private:
  bool is_share_ = true;
  std::uint64_t numerator_ = 100;  ///< bytes, or the share is numerator / (100 × scale)
  std::uint64_t scale_ = 1;
};

/// A whole decimal number in [least, most], digits only.
Result<std::uint64_t> parse_number(std::string_view text, std::uint64_t least, std::uint64_t most);

struct NumberRange {
  std::uint64_t least = 0;
  std::uint64_t most = std::numeric_limits<std::uint32_t>::max();
};

/// `--name N` into `value`, whose present value is shown as the default. Parsed strictly: CLI11's own conversions
/// let some overflows pass.
CLI::Option* add_number(CLI::App& app, std::string const& name, std::uint64_t& value, NumberRange range,
                        std::string const& description);

/// `--name FILE` into `value`. An empty path is malformed: it is a shell variable that was never set.
CLI::Option* add_path(CLI::App& app, std::string const& name, std::string& value, std::string const& description);

/// `--name BUDGET`. The second takes everything as its default, and tells whether it was given.
CLI::Option* add_budget(CLI::App& app, std::string const& name, Budget& value, std::string const& description);
CLI::Option* add_budget(CLI::App& app, std::string const& name, std::optional<Budget>& value,
                        std::string const& description);

/// `--name WORD`: one of `choices`, each a word and what it stands for. The word of the present value is the default.
/// V is T or std::optional<T>. The last `unlisted` words are taken and not told of: they are for tests.
template <class V, class T>
CLI::Option* add_choice(CLI::App& app, std::string const& name, V& value,
                        std::vector<std::pair<std::string, T>> const& choices, std::string const& description,
                        std::size_t unlisted = 0);

namespace detail {
/// `chosen(i)` is called with the place of the given word in `words`.
CLI::Option* add_word(CLI::App& app, std::string const& name, std::vector<std::string> words,
                      std::string const& initial, std::function<void(std::size_t)> chosen,
                      std::string const& description, std::size_t unlisted);
}  // namespace detail

template <class V, class T>
CLI::Option* add_choice(CLI::App& app, std::string const& name, V& value,
                        std::vector<std::pair<std::string, T>> const& choices, std::string const& description,
                        std::size_t unlisted) {
  std::vector<std::string> words;
  std::vector<T> values;
  std::string initial;
  for (auto const& [word, meaning] : choices) {
    words.push_back(word);
    values.push_back(meaning);
    if (meaning == value) initial = word;
  }
  auto chosen = [&value, values = std::move(values)](std::size_t i) { value = values[i]; };
  return detail::add_word(app, name, std::move(words), initial, std::move(chosen), description, unlisted);
}

}  // namespace sida::cli
