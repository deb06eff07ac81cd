#include <algorithm>
#include <cstdint>

#include "kernels/cpu/gemm_nn.hpp"

namespace sida::kernels {

void gemm_nn_portable(GemmNn const& a) noexcept {
  for (std::int64_t i = 0; i < a.m; ++i) {
    float const* const x = a.x + i * a.x_stride;
    float* const y = a.y + i * a.y_stride;
    std::fill_n(y, a.n, 0.0F);
    for (std::int64_t c = 0; c < a.k; ++c) {
      float const* const b = a.b + c * a.b_stride;
      for (std::int64_t j = 0; j < a.n; ++j) y[j] += x[c] * b[j];
    }
  }
}

}  // namespace sida::kernels
