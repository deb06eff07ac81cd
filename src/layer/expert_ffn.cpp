#include "sida/layer/expert_ffn.hpp"

#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "layer/ffn_block.hpp"
#include "sida/core/dtype.hpp"

namespace sida::inline v0 {

namespace {

float silu(float value) { return value / (1.0F + std::exp(-value)); }
float gelu(float value) { return 0.5F * value * (1.0F + std::erf(value * (std::numbers::sqrt2_v<float> / 2.0F))); }

/// Columns [first, first + count) of to = from w^T, for the matrix [., k] that stands at `offset` of the record.
GemmArgs columns_of(detail::FfnBlock const& block, std::size_t offset, Matrix<float const> from,
                    std::byte const* packed, Matrix<float> to, std::int64_t first, std::int64_t count) {
  Dtype const dtype = block.layout.shape.dtype;
  std::size_t const row_bytes = static_cast<std::size_t>(from.cols) * size_bytes(dtype);
  return {.x = from.data,
          .x_stride = from.stride,
          .w = block.record + offset + static_cast<std::size_t>(first) * row_bytes,
          .w_stride = from.cols,
          .y = to.data + first,
          .y_stride = to.stride,
          .m = from.rows,
          .n = count,
          .k = from.cols,
          .w_dtype = dtype,
          .packed = packed};
}

template <class T>
double weight_at(std::byte const* matrix, std::int64_t index) {
  T value;
  std::memcpy(&value, matrix + static_cast<std::size_t>(index) * sizeof(T), sizeof(T));
  return to_float(value);
}

/// y[o] = sum over i of w[o, i] x[i]. w: [y.size(), x.size()].
template <class T>
void reference_product(std::byte const* w, std::vector<double> const& x, std::vector<double>& y) {
  auto const k = std::ssize(x);
  for (std::int64_t o = 0; o < std::ssize(y); ++o) {
    double sum = 0;
    for (std::int64_t i = 0; i < k; ++i) {
      sum += weight_at<T>(w, o * k + i) * x[static_cast<std::size_t>(i)];
    }
    y[static_cast<std::size_t>(o)] = sum;
  }
}

double activate(FfnKind kind, double in, double gate) {
  switch (kind) {
    case FfnKind::relu: return in > 0 ? in : 0;
    case FfnKind::gelu: return 0.5 * in * (1 + std::erf(in / std::numbers::sqrt2));
    case FfnKind::swiglu: break;
  }
  return gate / (1 + std::exp(-gate)) * in;
}

template <class T>
void reference_ffn(ExpertLayout const& layout, std::byte const* record, Matrix<float const> x, Matrix<float> y) {
  auto const d_ff = static_cast<std::size_t>(layout.shape.d_ff);
  std::vector<double> input(static_cast<std::size_t>(layout.shape.d_model)), output(input.size());
  std::vector<double> hidden(d_ff), gate(d_ff);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    input.assign(x.row(t).begin(), x.row(t).end());
    if (layout.shape.kind == FfnKind::swiglu) reference_product<T>(record + layout.gate, input, gate);
    reference_product<T>(record + layout.in, input, hidden);
    for (std::size_t i = 0; i < d_ff; ++i) hidden[i] = activate(layout.shape.kind, hidden[i], gate[i]);
    reference_product<T>(record + layout.out, hidden, output);
    for (std::size_t i = 0; i < output.size(); ++i) y.row(t)[i] = static_cast<float>(output[i]);
  }
}

}  // namespace

namespace detail {

void ffn_hidden(FfnBlock const& block, std::int64_t first, std::int64_t count) {
  FfnKind const kind = block.layout.shape.kind;
  PackedRows const packing = {block.isa, block.layout.shape.dtype, block.h.cols};
  auto const columns = [&](std::size_t offset, Matrix<float> to) {
    return columns_of(block, offset, block.x, block.packed_x, to, first, count);
  };
  if (kind == FfnKind::relu && packs_relu(packing)) {
    return gemm_nt_relu_pack(columns(block.layout.in, block.h), packing, first, block.packed_h);
  }
  if (kind == FfnKind::swiglu) {
    gemm_nt(block.isa, columns(block.layout.gate, block.h));
    gemm_nt(block.isa, columns(block.layout.in, block.up));
  } else {
    gemm_nt(block.isa, columns(block.layout.in, block.h));
  }
  for (std::int64_t r = 0; r < block.h.rows; ++r) {
    float* const h = block.h.data + r * block.h.stride + first;
    if (kind == FfnKind::relu) {
      for (std::int64_t c = 0; c < count; ++c) h[c] = h[c] < 0.0F ? 0.0F : h[c];  // NaN stays
    } else if (kind == FfnKind::gelu) {
      for (std::int64_t c = 0; c < count; ++c) h[c] = gelu(h[c]);
    } else {
      float const* const up = block.up.data + r * block.up.stride + first;
      for (std::int64_t c = 0; c < count; ++c) h[c] = silu(h[c]) * up[c];
    }
  }
  if (block.packed_h == nullptr) return;
  packing.pack(block.h.data + first, block.h.stride, block.h.rows, first, count, block.packed_h);
}

void ffn_output(FfnBlock const& block, std::int64_t first, std::int64_t count) {
  gemm_nt(block.isa, columns_of(block, block.layout.out, block.h, block.packed_h, block.y, first, count));
}

}  // namespace detail

void reference_expert_ffn(ExpertLayout const& layout, std::byte const* record, Matrix<float const> x, Matrix<float> y) {
  switch (layout.shape.dtype) {
    case Dtype::f32: return reference_ffn<float>(layout, record, x, y);
    case Dtype::f16: return reference_ffn<fp16>(layout, record, x, y);
    case Dtype::bf16: return reference_ffn<bf16>(layout, record, x, y);
  }
}

}  // namespace sida::inline v0
