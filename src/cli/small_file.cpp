#include "cli/small_file.hpp"

#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "sida/detail/try.hpp"
#include "sida/io/file.hpp"

namespace sida::cli {
namespace {

constexpr std::uint64_t kMaxTokenizerBytes = std::uint64_t{256} << 20;

}  // namespace

Result<std::string> read_small_file(std::string const& path, std::uint64_t max_bytes) {
  SIDA_TRY_ASSIGN(auto const file, File::open(path, ReadPath::pread));
  if (file->size_bytes() > max_bytes) {
    return Error(Errc::corrupt,
                 path + ": " + std::to_string(file->size_bytes()) + " bytes, more than " + std::to_string(max_bytes));
  }
  std::string content(file->size_bytes(), '\0');
  SIDA_TRY(file->read_at(0, std::as_writable_bytes(std::span(content))));
  return content;
}

Result<std::string> read_tokenizer_file(std::string const& path, SwitchConfig const& config) {
  SIDA_TRY_ASSIGN(std::string bytes, read_small_file(path, kMaxTokenizerBytes));
  auto const tokenizer = Tokenizer::from_bytes(bytes, config.eos_token_id);
  if (!tokenizer) return Error(tokenizer.error()).with_context(path);
  if (tokenizer->vocab_size() > config.vocab_size) {
    return Error(Errc::corrupt, path + ": " + std::to_string(tokenizer->vocab_size()) + " pieces, but the model has " +
                                    std::to_string(config.vocab_size) + " embeddings");
  }
  return bytes;
}

Result<std::optional<Tokenizer>> open_tokenizer(SwitchCheckpoint const& checkpoint) {
  if (checkpoint.tokenizer.empty()) return std::optional<Tokenizer>();
  auto tokenizer = Tokenizer::from_bytes(checkpoint.tokenizer, checkpoint.config.eos_token_id);
  if (tokenizer) return std::optional<Tokenizer>(*std::move(tokenizer));
  std::error_code ignored;
  bool const is_folder = std::filesystem::is_directory(checkpoint.path, ignored);
  return std::move(tokenizer).error().with_context(checkpoint.path + (is_folder ? "/spiece.model" : ": tokenizer"));
}

}  // namespace sida::cli
