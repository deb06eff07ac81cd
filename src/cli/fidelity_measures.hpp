#pragma once

#include <optional>
#include <span>

#include "cli/dataset.hpp"
#include "sida/core/matrix.hpp"

namespace sida::cli {

/// How good answers are, by the labels of the data.
struct Quality {
  std::optional<double> accuracy;  ///< share of right answers; nothing without labels
  /// F1 of label 1, over all rows; 0 where label 1 is never answered right. MultiRC's F1a, since its rows are answers.
  /// Nothing without labels, and for anything but two of them.
  std::optional<double> f1;
};

/// logits: [rows, labels]. Rows without a label don't count.
Quality judge(std::span<Row const> rows, Matrix<float const> logits);

/// How near answers are to others.
struct Likeness {
  double agreement = 0;  ///< share of rows with the same answer
  double kl = 0;         ///< mean over rows of KL(softmax(exact) || softmax(other)), in nats
};

/// Both: [rows, labels]; at least one row.
Likeness compare(Matrix<float const> exact, Matrix<float const> other);

}  // namespace sida::cli
