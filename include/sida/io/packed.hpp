#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/core/result.hpp"
#include "sida/io/expert_source.hpp"
#include "sida/io/tensor_source.hpp"

namespace sida::inline v0 {

/// A packed container `FILE.sida`: header, index, config, tokenizer, dense tensors, and one 4 KiB-aligned record
/// per expert, each part under an XXH3-64 that is verified at every read from disk. Format: docs/formats.md.
/// A read of a part of a dense tensor reads and verifies the 1 MiB chunks that it touches. Thread-safe.
class SIDA_API PackedFile {
 public:
  /// @return not_found, io, corrupt, unsupported (another version).
  static Result<std::shared_ptr<PackedFile const>> open(std::string const& path, ReadPath read_path);
  virtual ~PackedFile() = default;

  virtual std::string const& config_json() const noexcept = 0;
  virtual std::string const& tokenizer() const noexcept = 0;  ///< a SentencePiece model, or empty
  virtual ExpertLayout const& layout() const noexcept = 0;
  virtual TensorSource const& dense() const noexcept = 0;
  virtual ExpertSource const& experts() const noexcept = 0;
};

/// What goes into a container. The sources are read once, from the calling thread; no more than one record or
/// 1 MiB of a tensor is held at a time. `progress` and `cancelled` are called on the calling thread.
struct PackInput {
  std::string config_json;
  std::string tokenizer;
  ExpertLayout layout;
  TensorSource const* dense = nullptr;
  std::vector<std::string> dense_names;  ///< tensors of `dense` to include
  ExpertSource const* experts = nullptr;
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress;  ///< may be empty
  std::function<bool()> cancelled;  ///< may be empty; asked before each record and each 1 MiB
  /// May be empty. Called with the name of the temporary file, once it is there: for who must remove it when the
  /// process is killed.
  std::function<void(std::string const& temporary)> started = {};
  /// May be empty. Called when all is on disk, with the size of the file, which doesn't appear if this fails.
  std::function<Status(std::uint64_t file_bytes)> written = {};
};

/// Writes a container atomically: temporary file beside `path`, fsync, rename. On failure the temporary is removed
/// and `path` is as it was. (One exception: when the new name itself can't be made durable, that is reported, and
/// `path` is the new file.) A process killed midway leaves `.sida-PID-N.tmp` behind, which `started` names.
/// @return invalid_argument, not_found (a tensor, the folder), cancelled, io, or what the sources return.
SIDA_API Status write_packed(std::string const& path, PackInput const& input);

}  // namespace sida::inline v0
