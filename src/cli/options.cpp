#include "cli/options.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>

#include <CLI/CLI.hpp>

namespace sida::cli {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t bytes;
};
constexpr std::array<Unit, 9> kUnits = {{{"B", 1},
                                         {"KB", 1000},
                                         {"MB", 1'000'000},
                                         {"GB", 1'000'000'000},
                                         {"TB", 1'000'000'000'000},
                                         {"KiB", std::uint64_t{1} << 10},
                                         {"MiB", std::uint64_t{1} << 20},
                                         {"GiB", std::uint64_t{1} << 30},
                                         {"TiB", std::uint64_t{1} << 40}}};

__extension__ using Wide = unsigned __int128;  // a budget is a product of two 64-bit numbers

std::string list_units() {
  std::string list = "%";
  for (Unit const& unit : kUnits) list += (&unit == &kUnits.back() ? " or " : ", ") + std::string(unit.name);
  return list;
}

/// A decimal number as digits / scale, exactly.
struct Decimal {
  std::uint64_t digits = 0;
  std::uint64_t scale = 1;
  bool is_too_large = false;
};

/// Reads "12" or "12.5" from the front of `text` and takes it off.
std::optional<Decimal> take_decimal(std::string_view& text) {
  Decimal number;
  auto const take_digits = [&](bool fraction) {
    std::size_t count = 0;
    for (; count < text.size() && text[count] >= '0' && text[count] <= '9'; ++count) {
      auto const digit = static_cast<std::uint64_t>(text[count] - '0');
      if (number.digits > (std::numeric_limits<std::uint64_t>::max() - digit) / 10) number.is_too_large = true;
      number.digits = number.digits * 10 + digit;
      if (fraction) {
        if (number.scale > 100'000'000) return false;  // nine places are enough for a budget
        number.scale *= 10;
      }
    }
    text.remove_prefix(count);
    return count > 0;
  };
  if (!take_digits(false)) return std::nullopt;
  if (!text.empty() && text.front() == '.') {
    text.remove_prefix(1);
    if (!take_digits(true)) return std::nullopt;
  }
  return number;
}

[[noreturn]] void reject(std::string const& option, std::string const& reason) {
  throw CLI::ValidationError(option, reason);
}

template <class V>
CLI::Option* add_any_budget(CLI::App& app, std::string const& name, V& value, std::string const& description) {
  auto const parse = [&value, name](std::string const& text) {
    auto const budget = Budget::parse(text);
    if (!budget) reject(name, budget.message());
    value = *budget;
  };
  return app.add_option_function<std::string>(name, parse, description)->type_name("BUDGET")->default_str("100%");
}

}  // namespace

Result<Budget> Budget::parse(std::string_view text) {
  std::string const quoted = "'" + std::string(text) + "'";
  Error const malformed(Errc::invalid_argument,
                        quoted + " is not a budget: give a share (20%), a size (512MiB) or a number of bytes");
  auto const number = take_decimal(text);
  if (!number) return malformed;
  Error const too_large(Errc::invalid_argument, quoted + " is too large");
  if (number->is_too_large) return too_large;
  Budget budget;
  if (text == "%") {
    if (number->digits > Wide{100} * number->scale) return Error(Errc::invalid_argument, quoted + " is more than 100%");
    budget.numerator_ = number->digits;
    budget.scale_ = number->scale;
    return budget;
  }
  if (text.empty() && number->scale != 1) return malformed;
  auto const* const unit = std::find_if(kUnits.begin(), kUnits.end(), [&](Unit const& u) { return u.name == text; });
  if (!text.empty() && unit == kUnits.end()) {
    return Error(Errc::invalid_argument,
                 quoted + " is not a budget: a number is followed by nothing (bytes), " + list_units());
  }
  Wide const bytes = Wide{number->digits} * (text.empty() ? 1 : unit->bytes) / number->scale;
  if (bytes > std::numeric_limits<std::uint64_t>::max()) return too_large;
  budget.is_share_ = false;
  budget.numerator_ = static_cast<std::uint64_t>(bytes);
  return budget;
}

std::uint64_t Budget::bytes(std::uint64_t experts, std::uint64_t slot_bytes) const {
  if (!is_share_) return numerator_;
  auto const slots = static_cast<std::uint64_t>(Wide{numerator_} * experts / (Wide{100} * scale_));
  return std::max<std::uint64_t>(slots, 1) * slot_bytes;
}

Result<std::uint64_t> parse_number(std::string_view text, std::uint64_t least, std::uint64_t most) {
  std::uint64_t value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    return Error(Errc::invalid_argument, "'" + std::string(text) + "' is not a whole number from " +
                                             std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

CLI::Option* add_number(CLI::App& app, std::string const& name, std::uint64_t& value, NumberRange range,
                        std::string const& description) {
  auto const parse = [&value, range, name](std::string const& text) {
    auto const number = parse_number(text, range.least, range.most);
    if (!number) reject(name, number.message());
    value = *number;
  };
  return app.add_option_function<std::string>(name, parse, description)
      ->type_name("N")
      ->default_str(std::to_string(value));
}

CLI::Option* add_path(CLI::App& app, std::string const& name, std::string& value, std::string const& description) {
  auto const parse = [&value, name](std::string const& text) {
    if (text.empty()) reject(name, "an empty path");
    value = text;
  };
  return app.add_option_function<std::string>(name, parse, description)->type_name("FILE");
}

CLI::Option* add_budget(CLI::App& app, std::string const& name, Budget& value, std::string const& description) {
  return add_any_budget(app, name, value, description);
}

CLI::Option* add_budget(CLI::App& app, std::string const& name, std::optional<Budget>& value,
                        std::string const& description) {
  return add_any_budget(app, name, value, description);
}

namespace detail {

CLI::Option* add_word(CLI::App& app, std::string const& name, std::vector<std::string> words,
                      std::string const& initial, std::function<void(std::size_t)> chosen,
                      std::string const& description, std::size_t unlisted) {
  std::string listed;
  for (std::size_t i = 0; i + unlisted < words.size(); ++i) listed += (i == 0 ? "" : ", ") + words[i];
  auto const parse = [words = std::move(words), listed, name, chosen = std::move(chosen)](std::string const& text) {
    auto const found = std::find(words.begin(), words.end(), text);
    if (found == words.end()) reject(name, "'" + text + "' is none of: " + listed);
    chosen(static_cast<std::size_t>(found - words.begin()));
  };
  auto* const option = app.add_option_function<std::string>(name, parse, description + ": " + listed);
  option->type_name("WORD");
  if (!initial.empty()) option->default_str(initial);
  return option;
}

}  // namespace detail

}  // namespace sida::cli
