#pragma once

#include <stdint.h>

#include "kernels/cpu/float_vectors.hpp"
#include "kernels/cpu/lstm_cell.hpp"

/// The step itself, which each file for an instruction set includes and compiles for itself. Library calls of exp and
/// tanh were a third to a half of a hash function's time.
namespace sida::kernels {
namespace {

inline Floats sigmoid(Floats x) { return 1.0F / (1.0F + exp_cut(-x)); }
inline Floats hyperbolic_tangent(Floats x) { return 1.0F - 2.0F / (1.0F + exp_cut(2.0F * x)); }

/// Units [j, j + count).
inline void step_units(LstmCell const& a, int64_t j, int64_t count) {
  auto const gate = [&](int64_t which) {
    int64_t const at = which * a.hidden + j;
    return load(a.from_input + at, count) + load(a.from_state + at, count);
  };
  Floats const cell = sigmoid(gate(1)) * load(a.cell + j, count) + sigmoid(gate(0)) * hyperbolic_tangent(gate(2));
  store(cell, a.cell + j, count);
  store(sigmoid(gate(3)) * hyperbolic_tangent(cell), a.state + j, count);
}

inline void lstm_cell_body(LstmCell const& a) {
  for_vectors(a.hidden, [&](int64_t j, int64_t count) SIDA_INLINED { step_units(a, j, count); });
}

}  // namespace
}  // namespace sida::kernels
