#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "dense/linear.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/core/workspace.hpp"
#include "sida/detail/try.hpp"
#include "sida/io/tensor_source.hpp"

namespace sida::inline v0::dense {

/// Reads tensors into one block of memory, see `load_weights`. Tensors were checked before: shape and type. A null
/// tensor is one that there isn't.
class WeightLoader {
 public:
  /// Counts: `used_bytes` afterwards is what the block must hold.
  explicit WeightLoader(TensorSource const& source) : source_(source), reads_(false) {}
  /// Reads into `place`, aligned to Workspace::kAlignment.
  WeightLoader(TensorSource const& source, std::span<std::byte> place) : source_(source), place_(place), reads_(true) {}

  void matrix(WeightMatrix& weight, TensorInfo const* tensor) {
    if (tensor == nullptr || !status_) return;
    std::byte* const data = place_.take<std::byte>(static_cast<std::int64_t>(tensor->size_bytes));
    weight = {data, tensor->shape[0], tensor->shape[1], *tensor->dtype()};
    if (reads_) status_ = source_.read(tensor->name, 0, {data, static_cast<std::size_t>(tensor->size_bytes)});
  }

  /// Vectors are few and short: they are widened to float.
  void vector(float const*& weight, TensorInfo const* tensor) {
    if (tensor == nullptr || !status_) return;
    float* const data = place_.take<float>(tensor->shape[0]);
    weight = data;
    floats(*tensor, {data, static_cast<std::size_t>(tensor->shape[0])});
  }

  /// Widened into a place of the caller's own, for what is kept in another form.
  void floats(TensorInfo const& tensor, std::span<float> out) {
    if (!reads_ || !status_) return;
    staging_.resize(static_cast<std::size_t>(tensor.size_bytes));
    status_ = source_.read(tensor.name, 0, staging_);
    if (status_) widen(*tensor.dtype(), staging_.data(), out);
  }

  std::size_t used_bytes() const noexcept { return place_.used_bytes(); }
  Status take_status() { return std::move(status_); }

 private:
  TensorSource const& source_;
  Workspace place_;
  bool reads_;
  std::vector<std::byte> staging_;
  Status status_;
};

/// Walks over all tensors in one order, twice: `walk(loader)` counts bytes first, and then reads into one block.
/// @return the block, which the weights point into; io, corrupt, out_of_memory.
template <class Walk>
Result<Buffer> load_weights(TensorSource const& source, MemoryResource& memory, Walk const& walk) {
  WeightLoader counter(source);
  walk(counter);
  SIDA_TRY_ASSIGN(Buffer arena, Buffer::allocate(memory, counter.used_bytes(), Workspace::kAlignment));
  WeightLoader loader(source, arena.bytes());
  walk(loader);
  SIDA_TRY(loader.take_status());
  return arena;
}

}  // namespace sida::inline v0::dense
