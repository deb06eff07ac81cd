#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

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

  /// Vectors and small tables are few and short: they are widened to float.
  void floats(float const*& weight, TensorInfo const* tensor) {
    if (tensor == nullptr || !status_) return;
    std::size_t const element_bytes = size_bytes(*tensor->dtype());
    auto const count = static_cast<std::size_t>(tensor->size_bytes / element_bytes);
    float* const data = place_.take<float>(static_cast<std::int64_t>(count));
    weight = data;
    std::array<std::byte, 16384> staging;
    for (std::size_t done = 0; reads_ && status_ && done < count;) {
      std::size_t const some = std::min(count - done, staging.size() / element_bytes);
      status_ = source_.read(tensor->name, done * element_bytes, std::span(staging).first(some * element_bytes));
      if (status_) widen(*tensor->dtype(), staging.data(), {data + done, some});
      done += some;
    }
  }

  /// Room in the block for what follows from tensors and is none itself; nullptr while counting.
  template <class T>
  T* room(std::int64_t count) noexcept {
    return place_.take<T>(count);
  }

  std::size_t used_bytes() const noexcept { return place_.used_bytes(); }
  Status take_status() { return std::move(status_); }

 private:
  TensorSource const& source_;
  Workspace place_;
  bool reads_;
  Status status_;
};

/// Walks over all tensors in one order, twice: `walk(loader)` counts bytes first, and then reads into one block.
/// @return the block, which the weights point into; io, corrupt; out_of_memory, naming the source.
template <class Walk>
Result<Buffer> load_weights(TensorSource const& source, MemoryResource& memory, Walk const& walk) {
  WeightLoader counter(source);
  walk(counter);
  auto arena = Buffer::allocate(memory, counter.used_bytes(), Workspace::kAlignment, "dense weights");
  if (!arena) return std::move(arena).error().with_context(source.path());
  WeightLoader loader(source, arena->bytes());
  walk(loader);
  SIDA_TRY(loader.take_status());
  return arena;
}

}  // namespace sida::inline v0::dense
