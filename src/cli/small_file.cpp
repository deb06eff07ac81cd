#include "cli/small_file.hpp"

#include <span>

#include "sida/detail/try.hpp"
#include "sida/io/file.hpp"
#include "sida/model/tokenizer.hpp"

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

}  // namespace sida::cli
