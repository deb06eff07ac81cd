#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/shape_text.hpp"
#include "io/json.hpp"
#include "io/tensor_size.hpp"
#include "sida/detail/try.hpp"
#include "sida/io/safetensors.hpp"

namespace sida::inline v0 {
namespace {

using io_detail::in_quotes;

/// The matrices of one expert; they stay where the source keeps them.
struct Matrices {
  TensorInfo const* gate = nullptr;
  TensorInfo const* in = nullptr;
  TensorInfo const* out = nullptr;
};

class TensorExpertSource final : public ExpertSource {
 public:
  TensorExpertSource(std::shared_ptr<TensorSource const> tensors, ExpertLayout const& layout)
      : tensors_(std::move(tensors)), layout_(layout) {}

  Status add_layer(std::vector<ExpertTensorNames> const& names);

  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return counts_; }
  std::size_t record_bytes(ExpertId) const noexcept override { return layout_.size_bytes; }
  Status read(ExpertId id, std::span<std::byte> dst) const override;
  ReadStats read_stats() const noexcept override { return tensors_->read_stats(); }

 private:
  Result<TensorInfo const*> find_matrix(ExpertId id, std::string const& name, std::int64_t rows,
                                        std::int64_t cols) const;
  /// The matrices of an expert with their places in the record, in the record's order.
  auto parts(Matrices const& expert) const {
    return std::array{std::pair(expert.gate, layout_.gate), std::pair(expert.in, layout_.in),
                      std::pair(expert.out, layout_.out)};
  }

  std::shared_ptr<TensorSource const> tensors_;
  ExpertLayout layout_;
  std::vector<std::uint32_t> counts_;
  std::vector<std::vector<Matrices>> experts_;  // [layer][expert]
};

Result<TensorInfo const*> TensorExpertSource::find_matrix(ExpertId id, std::string const& name, std::int64_t rows,
                                                          std::int64_t cols) const {
  TensorInfo const* const info = tensors_->find(name);
  if (info == nullptr) {
    return Error(Errc::not_found,
                 tensors_->path() + ": " + to_string(id) + ": tensor " + in_quotes(name) + " is missing");
  }
  if (info->dtype() != layout_.shape.dtype) {
    return Error(Errc::corrupt, tensors_->describe(*info) + ", of " + to_string(id) + ", is " + info->dtype_name +
                                    ", not " + std::string(to_string(layout_.shape.dtype)));
  }
  std::array const wanted{rows, cols};
  if (!std::ranges::equal(info->shape, wanted)) {
    return Error(Errc::corrupt, tensors_->describe(*info) + ", of " + to_string(id) + ", has shape " +
                                    detail::shape_text(info->shape) + ", not " + detail::shape_text(wanted));
  }
  return info;
}

Status TensorExpertSource::add_layer(std::vector<ExpertTensorNames> const& names) {
  std::int64_t const d_model = layout_.shape.d_model;
  std::int64_t const d_ff = layout_.shape.d_ff;
  std::vector<Matrices> layer(names.size());
  for (std::size_t e = 0; e < names.size(); ++e) {
    ExpertId const id{static_cast<std::uint32_t>(experts_.size()), static_cast<std::uint32_t>(e)};
    if (layout_.shape.kind == FfnKind::swiglu) {
      SIDA_TRY_ASSIGN(layer[e].gate, find_matrix(id, names[e].gate, d_ff, d_model));
    }
    SIDA_TRY_ASSIGN(layer[e].in, find_matrix(id, names[e].in, d_ff, d_model));
    SIDA_TRY_ASSIGN(layer[e].out, find_matrix(id, names[e].out, d_model, d_ff));
  }
  counts_.push_back(static_cast<std::uint32_t>(layer.size()));
  experts_.push_back(std::move(layer));
  return {};
}

Status TensorExpertSource::read(ExpertId id, std::span<std::byte> dst) const {
  if (id.layer >= experts_.size() || id.expert >= experts_[id.layer].size()) {
    return Error(Errc::invalid_argument, tensors_->path() + ": no " + to_string(id));
  }
  if (dst.size() < layout_.size_bytes) {
    return Error(Errc::invalid_argument, tensors_->path() + ": " + to_string(id) + ": room for " +
                                             std::to_string(dst.size()) + " of " + std::to_string(layout_.size_bytes) +
                                             " bytes");
  }
  std::size_t end = 0;  // of what stands in the record so far
  for (auto const& [info, offset] : parts(experts_[id.layer][id.expert])) {
    if (info == nullptr) continue;
    // Zeros between matrices, so that equal experts are equal bytes whatever the slot held before.
    std::memset(dst.data() + end, 0, offset - end);
    Status status = tensors_->read(info->name, 0, dst.subspan(offset, layout_.matrix_bytes()));
    if (!status) return std::move(status).error().with_context(to_string(id));
    end = offset + layout_.matrix_bytes();
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<ExpertSource>> make_tensor_expert_source(
    std::shared_ptr<TensorSource const> tensors, ExpertLayout const& layout,
    std::vector<std::vector<ExpertTensorNames>> const& names) {
  auto source = std::make_unique<TensorExpertSource>(std::move(tensors), layout);
  for (auto const& layer : names) SIDA_TRY(source->add_layer(layer));
  return std::unique_ptr<ExpertSource>(std::move(source));
}

}  // namespace sida::inline v0
