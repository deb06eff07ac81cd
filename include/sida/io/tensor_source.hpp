#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/result.hpp"
#include "sida/io/file.hpp"

namespace sida::inline v0 {

/// What a checkpoint says of one tensor. `dtype_name` is the file's own word ("BF16", "I32"), since a file may
/// hold tensors of types that sida does not compute with.
struct TensorInfo {
  std::string name;
  std::string dtype_name;
  std::vector<std::int64_t> shape;  ///< row-major
  std::uint64_t size_bytes = 0;
  /// Nothing when it is not one of the floating-point types that sida computes with.
  SIDA_API std::optional<Dtype> dtype() const noexcept;
};

/// Named tensors of a checkpoint: safetensors (one file or sharded) or a packed container. Thread-safe.
class SIDA_API TensorSource {
 public:
  virtual ~TensorSource() = default;
  /// File or folder, for messages.
  virtual std::string const& path() const noexcept = 0;
  /// All tensors, sorted by name.
  virtual std::span<TensorInfo const> tensors() const noexcept = 0;
  /// "FILE: tensor 'NAME' at byte N", for messages: the file that holds it, and its place there. Precondition: `info`
  /// is one of `tensors()`. By default without the place.
  virtual std::string describe(TensorInfo const& info) const;
  /// @return unsupported, with its description, when the tensor is not of a floating-point type.
  Result<Dtype> dtype(TensorInfo const& info) const;
  /// nullptr when there is none of that name. Logarithmic.
  TensorInfo const* find(std::string_view name) const noexcept;
  /// Reads the tensor's bytes [offset, offset + dst.size()). @return not_found, invalid_argument, io, corrupt.
  virtual Status read(std::string_view name, std::uint64_t offset, std::span<std::byte> dst) const = 0;
  virtual ReadStats read_stats() const noexcept = 0;
};

}  // namespace sida::inline v0
