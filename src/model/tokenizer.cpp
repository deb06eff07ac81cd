#include "sida/model/tokenizer.hpp"

#include <sentencepiece_processor.h>
#include <utility>

#include "sida/detail/try.hpp"

// Exported by SentencePiece, but declared in none of its installed headers.
namespace sentencepiece::logging {
void SetMinLogLevel(int level);
}  // namespace sentencepiece::logging

namespace sida::inline v0 {

struct Tokenizer::Impl {
  sentencepiece::SentencePieceProcessor processor;
  std::int32_t eos = 1;

  Status append(std::string_view text, std::vector<std::int32_t>& ids) const;
};

namespace {

// Above SentencePiece's fatal level (3), so that nothing is printed.
constexpr int kSilent = 4;

Error error_of(Errc code, std::string_view what, sentencepiece::util::Status const& status) {
  return {code, std::string(what) + ": " + status.error_message()};
}

}  // namespace

Status Tokenizer::Impl::append(std::string_view text, std::vector<std::int32_t>& ids) const {
  std::vector<int> pieces;
  if (auto const status = processor.Encode(text, &pieces); !status.ok()) {
    return error_of(Errc::invalid_argument, "SentencePiece cannot encode", status);
  }
  ids.insert(ids.end(), pieces.begin(), pieces.end());
  ids.push_back(eos);
  return {};
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::from_bytes(std::string_view model, std::int32_t eos_token_id) {
  if (eos_token_id < 0) {
    return Error(Errc::invalid_argument, "tokenizer: end-of-sequence id " + std::to_string(eos_token_id));
  }
  sentencepiece::logging::SetMinLogLevel(kSilent);
  auto impl = std::make_unique<Impl>();
  impl->eos = eos_token_id;
  if (auto const status = impl->processor.LoadFromSerializedProto(model); !status.ok()) {
    // Its own message names a line of its source.
    return Error(Errc::corrupt, "not a SentencePiece model (" + std::to_string(model.size()) + " bytes)");
  }
  return Tokenizer(std::move(impl));
}

Result<std::vector<std::int32_t>> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  SIDA_TRY(impl_->append(text, ids));
  return ids;
}

Result<std::vector<std::int32_t>> Tokenizer::encode_pair(std::string_view first, std::string_view second) const {
  std::vector<std::int32_t> ids;
  SIDA_TRY(impl_->append(first, ids));
  SIDA_TRY(impl_->append(second, ids));
  return ids;
}

Result<std::string> Tokenizer::decode(std::span<std::int32_t const> ids) const {
  for (std::int32_t const id : ids) {
    if (id < 0 || id >= vocab_size()) {
      return Error(Errc::invalid_argument,
                   "token id " + std::to_string(id) + " is not within 0 and " + std::to_string(vocab_size() - 1));
    }
  }
  std::string text;
  if (auto const status = impl_->processor.Decode(std::vector<int>(ids.begin(), ids.end()), &text); !status.ok()) {
    return error_of(Errc::invalid_argument, "SentencePiece cannot decode", status);
  }
  return text;
}

std::int32_t Tokenizer::vocab_size() const noexcept { return impl_->processor.GetPieceSize(); }
std::int32_t Tokenizer::eos_token_id() const noexcept { return impl_->eos; }

}  // namespace sida::inline v0
