#pragma once

#include <stdint.h>

namespace sida::kernels {

/// One row's softmax; see SoftmaxArgs in sida/kernels/cpu.hpp.
struct Softmax {
  float const* bias;  // [count]
  float* row;         // [count]
  int64_t count;
};

void softmax_portable(Softmax const& args) noexcept;
void softmax_avx2(Softmax const& args) noexcept;

}  // namespace sida::kernels
