#pragma once

#include <cassert>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "sida/core/api.hpp"

namespace sida::inline v0 {

/// What went wrong, for programs. The message of an `Error` is for people.
enum class Errc : std::uint8_t {
  ok = 0,
  invalid_argument,  ///< a shape, size, id or option that the callee does not accept
  not_found,         ///< a file, tensor or key that isn't there
  io,                ///< the operating system refused or cut short a read or write
  corrupt,           ///< bytes that contradict their format or their checksum
  unsupported,       ///< well-formed, but not something that sida can do
  out_of_memory,     ///< an allocation failed; the message says how many bytes
  over_budget,       ///< the byte budget cannot hold what was asked for
  would_deadlock,    ///< a second blocking acquire by a thread that holds a wave
  cancelled,         ///< `cancel()` was called, or the other side stopped
  device,            ///< an error of a GPU runtime; the message holds its name
};

/// The enumerator's name, such as "over_budget".
SIDA_API std::string_view to_string(Errc code) noexcept;

/// A code and a message that names the file, the tensor or the expert, and the place.
class [[nodiscard]] Error {
 public:
  Error() = default;
  Error(Errc code, std::string message) : code_(code), message_(std::move(message)) {}

  Errc code() const noexcept { return code_; }
  std::string const& message() const& noexcept { return message_; }
  std::string message() && noexcept { return std::move(message_); }

  /// The same error with "context: " before its message.
  [[nodiscard]] Error with_context(std::string_view context) && {
    message_.insert(0, ": ");
    message_.insert(0, context);
    return std::move(*this);
  }

 private:
  Errc code_ = Errc::ok;
  std::string message_;
};

/// Success, or an `Error`. True when it succeeded.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)
  Status(Errc code, std::string message) : error_(code, std::move(message)) {}

  explicit operator bool() const noexcept { return error_.code() == Errc::ok; }
  Errc code() const noexcept { return error_.code(); }
  std::string const& message() const& noexcept { return error_.message(); }
  std::string message() && noexcept { return std::move(error_).message(); }

  /// Precondition: this is a failure.
  Error const& error() const& noexcept { return error_; }
  Error error() && noexcept { return std::move(error_); }

 private:
  Error error_;
};

/// A value, or an `Error`; shaped like C++23's std::expected.
template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  template <class U = T>
  requires(std::is_constructible_v<T, U&&> && !std::is_same_v<std::remove_cvref_t<U>, Result> &&
           !std::is_same_v<std::remove_cvref_t<U>, Error> && !std::is_same_v<std::remove_cvref_t<U>, Status>)
      Result(U&& value)
      : value_(std::in_place, std::forward<U>(value)) {}  // NOLINT(google-explicit-constructor)
  Result(Error error) : error_(std::move(error)) {}       // NOLINT(google-explicit-constructor)
  Result(Errc code, std::string message) : error_(code, std::move(message)) {}
  /// Precondition: `status` is a failure.
  Result(Status status) : error_(std::move(status).error()) {  // NOLINT(google-explicit-constructor)
    assert(error_.code() != Errc::ok);
  }

  explicit operator bool() const noexcept { return value_.has_value(); }
  bool has_value() const noexcept { return value_.has_value(); }

  /// Precondition of all four: this holds a value.
  T& operator*() & noexcept { return *value_; }
  T const& operator*() const& noexcept { return *value_; }
  T&& operator*() && noexcept { return *std::move(value_); }
  T* operator->() noexcept { return &*value_; }
  T const* operator->() const noexcept { return &*value_; }

  Errc code() const noexcept { return error_.code(); }
  std::string const& message() const& noexcept { return error_.message(); }
  /// Precondition: this is a failure.
  Error const& error() const& noexcept { return error_; }
  Error error() && noexcept { return std::move(error_); }
  Status status() const { return value_ ? Status() : Status(error_); }

 private:
  std::optional<T> value_;
  Error error_;
};

}  // namespace sida::inline v0
