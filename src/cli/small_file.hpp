#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "sida/core/result.hpp"
#include "sida/model/switch_checkpoint.hpp"
#include "sida/model/switch_config.hpp"
#include "sida/model/tokenizer.hpp"

namespace sida::cli {

/// The whole of a file. @return not_found, io; corrupt for more than `max_bytes`.
Result<std::string> read_small_file(std::string const& path, std::uint64_t max_bytes);

/// The bytes of a SentencePiece model whose pieces fit the vocabulary of `config`. @return not_found, io, corrupt.
Result<std::string> read_tokenizer_file(std::string const& path, SwitchConfig const& config);
/// The tokenizer in a checkpoint; nothing where it has none. @return corrupt, naming the file.
Result<std::optional<Tokenizer>> open_tokenizer(SwitchCheckpoint const& checkpoint);

}  // namespace sida::cli
