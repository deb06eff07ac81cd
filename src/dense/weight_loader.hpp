#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "dense/linear.hpp"

#include "sida/core/result.hpp"
#include "sida/core/workspace.hpp"
#include "sida/io/tensor_source.hpp"

namespace sida::inline v0::dense {

/// Reads tensors into one block of memory. Whoever loads walks over all of its tensors in one order, twice: first to
/// count bytes, then to read. Tensors were checked before: shape and type. A null tensor is one that there isn't.
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
    if (reads_) read_floats(*tensor, {data, static_cast<std::size_t>(tensor->shape[0])});
  }

  void read_floats(TensorInfo const& tensor, std::span<float> out) {
    if (!status_) return;
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

}  // namespace sida::inline v0::dense
