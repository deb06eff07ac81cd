#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "sida/core/result.hpp"

namespace sida::cli {

/// SHA-256 of bytes that come in pieces. Move-only.
class Sha256 {
 public:
  /// @return unsupported where the system's OpenSSL has no SHA-256.
  static Result<Sha256> create();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  void update(std::span<std::byte const> bytes);
  /// 64 lower-case hexadecimal digits, of all bytes so far. May go on afterwards.
  std::string hex() const;

 private:
  struct Impl;
  explicit Sha256(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sida::cli
