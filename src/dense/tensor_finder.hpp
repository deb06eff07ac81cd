#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/shape_text.hpp"
#include "sida/core/result.hpp"
#include "sida/io/tensor_source.hpp"

namespace sida::inline v0::dense {

/// Finds tensors by name and checks their shape and type, until the first failure.
class TensorFinder {
 public:
  using Shape = std::vector<std::int64_t>;

  /// `implied_by`: what says which shapes there must be, for messages.
  TensorFinder(TensorSource const& source, std::string implied_by)
      : source_(source), implied_by_(std::move(implied_by)) {}

  /// Sets `tensor` to the entry of `name`; on a failure it stays as it is.
  void find(TensorInfo const*& tensor, std::string const& name, Shape const& shape) {
    if (!status_) return;
    TensorInfo const* const found = source_.find(name);
    if (found == nullptr) {
      status_ = Error(Errc::not_found, source_.path() + ": no tensor '" + name + "' " + detail::shape_text(shape));
      return;
    }
    if (found->shape != shape) {
      status_ = Error(Errc::corrupt, source_.describe(*found) + " is " + detail::shape_text(found->shape) + ", but " +
                                         implied_by_ + " implies " + detail::shape_text(shape));
      return;
    }
    status_ = source_.dtype(*found).status();
    if (!status_) return;
    tensor = found;
    found_.push_back(found);
  }

  bool has(std::string_view name) const noexcept { return source_.find(name) != nullptr; }
  /// All that was found, in the order of the calls.
  std::vector<TensorInfo const*> const& found() const noexcept { return found_; }
  Status take_status() { return std::move(status_); }

 private:
  TensorSource const& source_;
  std::string implied_by_;
  std::vector<TensorInfo const*> found_;
  Status status_;
};

}  // namespace sida::inline v0::dense
