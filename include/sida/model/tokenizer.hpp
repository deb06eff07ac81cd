#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0 {

/// Text ↔ token ids by a SentencePiece model, with the end-of-sequence id that T5 and Switch append. Text is never
/// parsed for special tokens: "</s>" in a text is four characters. Thread-safe once made. Move-only.
class SIDA_API Tokenizer {
 public:
  /// `model`: the bytes of a SentencePiece model (spiece.model). Also sets SentencePiece's process-wide log level so
  /// that it stays silent. @return corrupt for bytes that are not such a model; invalid_argument for a negative id.
  static Result<Tokenizer> from_bytes(std::string_view model, std::int32_t eos_token_id = 1);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// ids(text), eos. Empty text gives eos alone. Bytes that are not UTF-8 become the unknown token.
  Result<std::vector<std::int32_t>> encode(std::string_view text) const;
  /// ids(first), eos, ids(second), eos: how T5's tokenizer joins a pair.
  Result<std::vector<std::int32_t>> encode_pair(std::string_view first, std::string_view second) const;
  /// For display. @return invalid_argument for an id outside of [0, vocab_size()).
  Result<std::string> decode(std::span<std::int32_t const> ids) const;

  /// Pieces of the model. May be less than the model's vocabulary, which is padded.
  std::int32_t vocab_size() const noexcept;
  std::int32_t eos_token_id() const noexcept;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sida::inline v0
