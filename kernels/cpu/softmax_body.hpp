#pragma once

#include <stdint.h>
#include <string.h>

#include "kernels/cpu/float_vectors.hpp"
#include "kernels/cpu/softmax.hpp"

/// The row itself, which each file for an instruction set includes and compiles for itself.
namespace sida::kernels {
namespace {

/// row += bias, and -inf after it. @return the highest, or -inf where none is above it.
inline float add_bias(Softmax const& a) {
  Floats highest = all(-__builtin_inff());
  for (int64_t j = 0; j < a.count; j += kWidth) {
    Floats scores = load(a.row + j, kWidth);
    Floats bias = load(a.bias + j, kWidth);
    if (a.count - j < kWidth) {
      auto const is_there = lanes() < all(static_cast<float>(a.count - j));
      scores = is_there ? scores : all(-__builtin_inff());
      bias = is_there ? bias : Floats{};
    }
    scores += bias;
    store(scores, a.row + j, kWidth);
    highest = scores > highest ? scores : highest;
  }
  float most = highest[0];
  for (int64_t lane = 1; lane < kWidth; ++lane) most = highest[lane] > most ? highest[lane] : most;
  return most;
}

/// Weights below e^-70 of the highest are 0: nothing in a sum of floats, and slow where they would be denormal.
inline constexpr float kLeast = -70.0F;

/// row = e^(row - highest). @return the sum.
inline float exponentials(Softmax const& a, float highest) {
  Floats sums = {};
  for (int64_t j = 0; j < a.count; j += kWidth) {
    Floats const below = load(a.row + j, kWidth) - highest;
    Floats const weights = below < all(kLeast) ? Floats{} : exp_cut(below);
    store(weights, a.row + j, kWidth);
    sums += weights;
  }
  float sum = 0;
  for (int64_t lane = 0; lane < kWidth; ++lane) sum += sums[lane];
  return sum;
}

inline void softmax_body(Softmax const& a) {
  float const sum = exponentials(a, add_bias(a));
  for (int64_t j = 0; j < a.count; j += kWidth) store(load(a.row + j, kWidth) / sum, a.row + j, kWidth);
}

}  // namespace
}  // namespace sida::kernels
