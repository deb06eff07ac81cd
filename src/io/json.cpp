#include "io/json.hpp"

#include <cmath>
#include <cstring>
#include <exception>
#include <iterator>
#include <new>
#include <unordered_set>
#include <utility>
#include <vector>

#include "sida/detail/try.hpp"

namespace sida::inline v0::io_detail {
namespace {

/// Reads characters and says how many were read, since nlohmann's SAX events carry no position.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = char const*;
  using reference = char const&;

  CountingIterator(char const* at, std::size_t* count) : at_(at), count_(count) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    ++at_;
    ++*count_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator const before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(CountingIterator const& a, CountingIterator const& b) { return a.at_ == b.at_; }

 private:
  char const* at_;
  std::size_t* count_;
};

/// nlohmann's SAX consumer: builds the document, or with a `member` callback one member at a time.
class Builder {
 public:
  Builder(std::string const& name, JsonLimits const& limits, JsonMember const* member)
      : name_(name), limits_(limits), member_(member) {}

  std::size_t* position() { return &position_; }
  Json& root() { return root_; }
  Status take_status() { return std::move(status_); }

  // The names and signatures of this block are nlohmann's.
  bool null() { return add(Json(nullptr), false); }
  bool boolean(bool value) { return add(Json(value), false); }
  bool number_integer(Json::number_integer_t value) { return add(Json(value), false); }
  bool number_unsigned(Json::number_unsigned_t value) { return add(Json(value), false); }
  bool number_float(Json::number_float_t value, std::string const&) { return add(Json(value), false); }
  bool string(std::string& value) { return add(Json(std::move(value)), false); }
  bool binary(Json::binary_t&) { return fail("binary value"); }
  bool start_object(std::size_t) { return add(Json::object(), true); }
  bool start_array(std::size_t) { return add(Json::array(), true); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& key);
  bool parse_error(std::size_t position, std::string const&, std::exception const& error);

  bool fail(std::string const& why) {
    status_ = Error(Errc::corrupt, name_ + ": JSON byte " + std::to_string(position_) + ": " + why);
    return false;
  }

 private:
  bool add(Json&& value, bool is_container);
  bool close();
  bool deliver();
  bool streams_here() const { return member_ != nullptr && depth_ == 1; }

  std::string const& name_;
  JsonLimits const& limits_;
  JsonMember const* member_;
  std::size_t position_ = 0;  // bytes read
  std::size_t depth_ = 0;
  std::size_t values_ = 0;
  Json root_;  // the document, or the member at hand
  // Open containers. A pointer stays valid while it is here: its parent does not grow before it closes.
  std::vector<Json*> open_;
  Json* slot_ = nullptr;  // where the value of the last key goes, in an object
  std::string member_key_;
  std::size_t member_offset_ = 0;
  std::unordered_set<std::string> member_keys_;
  Status status_;
};

bool Builder::key(std::string& key) {
  if (streams_here()) {
    if (!member_keys_.insert(key).second) return fail("key " + in_quotes(key) + " occurs twice");
    member_key_ = std::move(key);
    member_offset_ = position_;
    return true;
  }
  auto& object = open_.back()->get_ref<Json::object_t&>();
  auto const [entry, is_new] = object.try_emplace(key);
  if (!is_new) return fail("key " + in_quotes(key) + " occurs twice");
  slot_ = &entry->second;
  return true;
}

bool Builder::add(Json&& value, bool is_container) {
  if (++values_ > limits_.max_values) return fail("more than " + std::to_string(limits_.max_values) + " values");
  if (is_container && depth_ == limits_.max_depth) {
    return fail("nested deeper than " + std::to_string(limits_.max_depth));
  }
  if (member_ != nullptr && depth_ == 0) {
    if (!value.is_object()) return fail("not an object");
    depth_ = 1;
    return true;
  }
  Json* place = &root_;
  if (!open_.empty() && open_.back()->is_array()) {
    auto& array = open_.back()->get_ref<Json::array_t&>();
    place = &array.emplace_back();
  } else if (!open_.empty()) {
    place = slot_;
  }
  *place = std::move(value);
  if (is_container) {
    open_.push_back(place);
    ++depth_;
    return true;
  }
  return streams_here() ? deliver() : true;
}

bool Builder::close() {
  --depth_;
  if (open_.empty()) return true;  // the outermost object of `for_each_member`
  open_.pop_back();
  return streams_here() ? deliver() : true;
}

bool Builder::deliver() {
  status_ = (*member_)(member_key_, root_, member_offset_);
  root_ = Json();
  values_ = 1;
  return static_cast<bool>(status_);
}

bool Builder::parse_error(std::size_t, std::string const&, std::exception const& error) {
  // nlohmann quotes the last token, which may be long and hold anything.
  std::string_view what = error.what();
  if (auto const start = what.find("syntax error"); start != std::string_view::npos) what.remove_prefix(start);
  return fail(in_quotes(what));
}

Status run(std::string_view text, Builder& builder, std::string const& name, JsonLimits const& limits) {
  if (text.size() > limits.max_bytes) {
    return Error(Errc::corrupt, name + ": JSON of " + std::to_string(text.size()) + " bytes, more than " +
                                    std::to_string(limits.max_bytes));
  }
  // nlohmann takes a NUL byte for the end of the text and would accept what stands behind it.
  if (auto const nul = text.find('\0'); nul != std::string_view::npos) {
    return Error(Errc::corrupt, name + ": JSON byte " + std::to_string(nul) + ": NUL byte");
  }
  try {
    CountingIterator const begin(text.data(), builder.position());
    CountingIterator const end(text.data() + text.size(), builder.position());
    bool const accepted = Json::sax_parse(begin, end, &builder);
    Status status = builder.take_status();
    if (!accepted && status) return Error(Errc::corrupt, name + ": malformed JSON");
    return status;
  } catch (std::bad_alloc const&) {
    return Error(Errc::out_of_memory, name + ": JSON of " + std::to_string(text.size()) + " bytes");
  }
}

Error type_error(std::string const& what, std::string_view wanted, Json const& value) {
  return {Errc::corrupt, what + " is not " + std::string(wanted) + " but " + value.type_name()};
}

std::string key_name(std::string_view key, std::string const& name) { return name + ": key " + in_quotes(key); }

Result<Json const*> require(Json const& object, std::string_view key, std::string const& name) {
  if (!object.is_object()) return Error(Errc::corrupt, name + ": not a JSON object but " + object.type_name());
  Json const* const value = find_member(object, key);
  if (value == nullptr) return Error(Errc::not_found, name + ": no key " + in_quotes(key));
  return value;
}

/// What is wrong with a double where an integer is wanted.
Error integer_error(Json const& value, std::string const& what) {
  double const number = value.get<double>();
  bool const is_whole = std::floor(number) == number;
  if (is_whole && std::fabs(number) >= 0x1p63) return {Errc::corrupt, what + " is out of range: " + value.dump()};
  return {Errc::corrupt, what + " is not an integer: " + value.dump()};
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string const& name, JsonLimits const& limits) {
  Builder builder(name, limits, nullptr);
  SIDA_TRY(run(text, builder, name, limits));
  return std::move(builder.root());
}

Status for_each_member(std::string_view text, std::string const& name, JsonLimits const& limits,
                       JsonMember const& member) {
  Builder builder(name, limits, &member);
  return run(text, builder, name, limits);
}

Json const* find_member(Json const& object, std::string_view key) noexcept {
  auto const* const members = object.get_ptr<Json::object_t const*>();
  if (members == nullptr) return nullptr;
  auto const found = members->find(key);
  return found == members->end() || found->second.is_null() ? nullptr : &found->second;
}

Result<std::uint64_t> as_uint(Json const& value, std::string const& what) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  if (value.is_number_integer()) return Error(Errc::corrupt, what + " is negative: " + value.dump());
  if (!value.is_number_float()) return type_error(what, "an integer", value);
  if (std::signbit(value.get<double>())) return Error(Errc::corrupt, what + " is negative: " + value.dump());
  return integer_error(value, what);
}

Result<std::int64_t> as_int(Json const& value, std::string const& what) {
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) {
    return Error(Errc::corrupt, what + " is out of range: " + value.dump());
  }
  if (value.is_number_integer()) return value.get<std::int64_t>();  // true of unsigned ones too
  if (!value.is_number_float()) return type_error(what, "an integer", value);
  return integer_error(value, what);
}

Result<std::uint64_t> get_uint(Json const& object, std::string_view key, std::string const& name) {
  SIDA_TRY_ASSIGN(auto const* const value, require(object, key, name));
  return as_uint(*value, key_name(key, name));
}

Result<std::int64_t> get_int(Json const& object, std::string_view key, std::string const& name) {
  SIDA_TRY_ASSIGN(auto const* const value, require(object, key, name));
  return as_int(*value, key_name(key, name));
}

Result<double> get_number(Json const& object, std::string_view key, std::string const& name) {
  SIDA_TRY_ASSIGN(auto const* const value, require(object, key, name));
  if (!value->is_number()) return type_error(key_name(key, name), "a number", *value);
  return value->get<double>();
}

Result<bool> get_bool(Json const& object, std::string_view key, std::string const& name) {
  SIDA_TRY_ASSIGN(auto const* const value, require(object, key, name));
  if (!value->is_boolean()) return type_error(key_name(key, name), "true or false", *value);
  return value->get<bool>();
}

Result<std::string> get_string(Json const& object, std::string_view key, std::string const& name) {
  SIDA_TRY_ASSIGN(auto const* const value, require(object, key, name));
  if (!value->is_string()) return type_error(key_name(key, name), "a string", *value);
  return value->get<std::string>();
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kMax = 120;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "'";
  for (char const c : text.substr(0, kMax)) {
    auto const byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7F) {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out + (text.size() > kMax ? "...'" : "'");
}

}  // namespace sida::inline v0::io_detail
