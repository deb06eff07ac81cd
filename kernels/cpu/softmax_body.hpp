#pragma once

#include <stdint.h>
#include <string.h>

#include "kernels/cpu/float_vectors.hpp"
#include "kernels/cpu/softmax.hpp"

/// The row itself, which each file for an instruction set includes and compiles for itself.
namespace sida::kernels {
namespace {

/// row += bias. @return the highest, or -inf where none is above it.
inline float add_bias(Softmax const& a) {
  Floats highest = all(-__builtin_inff());
  for_vectors(a.count, [&](int64_t j, int64_t count) SIDA_INLINED {
    Floats const biased = load(a.row + j, count) + load(a.bias + j, count);
    store(biased, a.row + j, count);
    Floats scores = all(-__builtin_inff());
    memcpy(&scores, &biased, static_cast<size_t>(count) * sizeof(float));
    highest = scores > highest ? scores : highest;
  });
  float most = highest[0];
  for (int64_t lane = 1; lane < kWidth; ++lane) most = highest[lane] > most ? highest[lane] : most;
  return most;
}

/// Weights below e^-70 of the highest are 0: nothing in a sum of floats, and slow where they would be denormal.
constexpr float kLeast = -70.0F;

/// row = e^(row - highest). @return the sum.
inline float exponentials(Softmax const& a, float highest) {
  Floats sums = {};
  for_vectors(a.count, [&](int64_t j, int64_t count) SIDA_INLINED {
    Floats const below = load(a.row + j, count) - highest;
    store(below < all(kLeast) ? Floats{} : exp_cut(below), a.row + j, count);
    sums += load(a.row + j, count);
  });
  float sum = 0;
  for (int64_t lane = 0; lane < kWidth; ++lane) sum += sums[lane];
  return sum;
}

inline void softmax_body(Softmax const& a) {
  float const sum = exponentials(a, add_bias(a));
  for_vectors(a.count,
              [&](int64_t j, int64_t count) SIDA_INLINED { store(load(a.row + j, count) / sum, a.row + j, count); });
}

}  // namespace
}  // namespace sida::kernels
