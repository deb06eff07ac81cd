#include "predict/lstm_hash_network.hpp"

#include <algorithm>
#include <functional>

#include "sida/core/workspace.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::predict_detail {
namespace {

constexpr std::int64_t kAttentionRows = 16;  // of one sequence, that one task mixes

}  // namespace

void LstmHashPass::carve(Workspace place, std::int64_t tokens) {
  std::int64_t const hidden = weights_.hidden();
  auto const matrix = [&](std::int64_t cols) { return Matrix<float>(place.take<float>(tokens * cols), tokens, cols); };
  compressed_ = matrix(hidden);
  gates_ = matrix(4 * hidden);
  below_ = matrix(hidden);
  above_ = matrix(hidden);
  mixed_ = matrix(hidden);
  logits_.clear();
  for (std::size_t i = 0; i < weights_.heads.size(); ++i) logits_.push_back(matrix(weights_.experts()));
  std::int64_t const recurrence = (groups_.empty() ? 0 : std::ssize(groups_.front())) * 6 * hidden;
  std::int64_t const attention = (kAttentionRows + 1) * longest_;
  lane_scratch_.clear();
  for (std::int64_t i = 0; i < lanes_; ++i) {
    lane_scratch_.push_back(place.take<float>(std::max(recurrence, attention)));
  }
  used_bytes_ = place.used_bytes();
}

/// Group i takes sequences i, i + lanes, …, longest first, so that groups end at about the same time.
void LstmHashPass::share_out(std::span<Sequence const> sequences) {
  std::vector<Sequence> ordered(sequences.begin(), sequences.end());
  std::erase_if(ordered, [](Sequence const& sequence) { return sequence.length == 0; });
  std::ranges::stable_sort(ordered, std::greater<>(), &Sequence::length);
  longest_ = ordered.empty() ? 0 : ordered.front().length;
  groups_.resize(std::min(ordered.size(), static_cast<std::size_t>(lanes_)));
  for (std::size_t i = 0; i < ordered.size(); ++i) groups_[i % groups_.size()].push_back(ordered[i]);
}

Status LstmHashPass::run(std::span<Matrix<float const> const> embeddings, std::span<Sequence const> sequences,
                         MemoryResource& memory) {
  std::int64_t tokens = 0;
  for (auto const& part : embeddings) tokens += part.rows;
  lanes_ =
      std::clamp<std::int64_t>(static_cast<std::int64_t>(pool_.concurrency()), 1, std::max<std::int64_t>(tokens, 1));
  share_out(sequences);
  carve(Workspace(), tokens);
  SIDA_TRY_ASSIGN(buffer_, Buffer::allocate(memory, std::max<std::size_t>(used_bytes_, 1), Workspace::kAlignment,
                                            "matrices of the hash function"));
  carve(Workspace(buffer_.bytes()), tokens);
  if (tokens == 0) return {};

  compress(embeddings);
  lstm_layer(weights_.lstm[0], compressed_, below_);
  lstm_layer(weights_.lstm[1], below_, above_);
  linear(compressed_, weights_.residual, mixed_);
  attend();
  for (std::size_t i = 0; i < logits_.size(); ++i) linear(mixed_, weights_.heads[i], logits_[i]);
  if (stop_.stop_requested()) return {Errc::cancelled, "hash function: stopped"};
  return {};
}

void LstmHashPass::linear(Matrix<float const> x, LinearWeights const& weights, Matrix<float> y, bool relu) {
  dense::LinearJob const jobs[] = {{weights.weight, y}};
  dense::run_linear(pool_, isa_, x, jobs, [&](dense::LinearBlock const& block) {
    add_bias(weights.bias, block);
    if (!relu) return;
    for (std::int64_t r = 0; r < block.y.rows; ++r) {
      for (float& value : block.y.row(r)) value = std::max(value, 0.0F);
    }
  });
}

void LstmHashPass::compress(std::span<Matrix<float const> const> embeddings) {
  std::int64_t first = 0;
  for (auto const& part : embeddings) {
    linear(part, weights_.compression, compressed_.row_range(first, part.rows), true);
    first += part.rows;
  }
}

void LstmHashPass::lstm_layer(LstmLayerWeights const& layer, Matrix<float const> x, Matrix<float> h) {
  dense::LinearJob const jobs[] = {{layer.input, gates_}};
  dense::run_linear(pool_, isa_, x, jobs, [&](dense::LinearBlock const& block) {
    add_bias(layer.input_bias, block);
    add_bias(layer.recurrent_bias, block);
  });
  auto const task = [&](std::size_t lane) { recur(layer, groups_[lane], h, lane_scratch_[lane]); };
  pool_.run(groups_.size(), task);
}

/// Sequences of `group` (longest first) step together, so that one pass over the weights serves them all.
void LstmHashPass::recur(LstmLayerWeights const& layer, std::span<Sequence const> group, Matrix<float> h,
                         float* scratch) const {
  std::int64_t const hidden = weights_.hidden();
  auto const size = static_cast<std::int64_t>(group.size());
  Matrix<float> const state(scratch, size, hidden);
  Matrix<float> const cell(scratch + size * hidden, size, hidden);
  Matrix<float> const gates(scratch + 2 * size * hidden, size, 4 * hidden);
  std::fill_n(scratch, 2 * size * hidden, 0.0F);
  std::int64_t active = size;
  for (std::int64_t step = 0; step < group.front().length; ++step) {
    if (stop_.stop_requested()) return;
    while (group[static_cast<std::size_t>(active) - 1].length <= step) --active;
    gemm_nt(isa_, {.x = state.data,
                   .x_stride = state.stride,
                   .w = layer.recurrent.data,
                   .w_stride = layer.recurrent.cols,
                   .y = gates.data,
                   .y_stride = gates.stride,
                   .m = active,
                   .n = gates.cols,
                   .k = hidden,
                   .w_dtype = layer.recurrent.dtype});
    for (std::int64_t i = 0; i < active; ++i) {
      std::int64_t const token = group[static_cast<std::size_t>(i)].first + step;
      lstm_cell(isa_, {.from_input = gates_.row(token).data(),
                       .from_state = gates.row(i).data(),
                       .cell = cell.row(i).data(),
                       .state = state.row(i).data(),
                       .hidden = hidden});
      std::ranges::copy(state.row(i), h.row(token).begin());
    }
  }
}

/// mixed += sparsemax(h h^T) h, within each sequence.
void LstmHashPass::attend() {
  struct Rows {
    Sequence const* sequence;
    std::int64_t first, count;
  };
  std::vector<Rows> blocks;
  for (auto const& group : groups_) {
    for (Sequence const& sequence : group) {
      for (std::int64_t row = 0; row < sequence.length; row += kAttentionRows) {
        blocks.push_back({&sequence, row, std::min(kAttentionRows, sequence.length - row)});
      }
    }
  }
  auto const task = [&](std::size_t lane) {
    for (std::size_t i = lane; i < blocks.size(); i += static_cast<std::size_t>(lanes_)) {
      if (stop_.stop_requested()) return;
      attend_rows(*blocks[i].sequence, blocks[i].first, blocks[i].count, lane_scratch_[lane]);
    }
  };
  pool_.run(static_cast<std::size_t>(std::min<std::int64_t>(lanes_, std::ssize(blocks))), task);
}

void LstmHashPass::attend_rows(Sequence const& sequence, std::int64_t first, std::int64_t rows, float* scratch) const {
  Matrix<float const> const h = Matrix<float const>(above_).row_range(sequence.first, sequence.length);
  Matrix<float> const scores(scratch, rows, sequence.length);
  std::span<float> const ordered(scratch + rows * sequence.length, static_cast<std::size_t>(sequence.length));
  gemm_nt(isa_, {.x = h.row(first).data(),
                 .x_stride = h.stride,
                 .w = h.data,
                 .w_stride = h.stride,
                 .y = scores.data,
                 .y_stride = scores.stride,
                 .m = rows,
                 .n = sequence.length,
                 .k = h.cols});
  for (std::int64_t r = 0; r < rows; ++r) {
    auto const weights = scores.row(r);
    sparsemax(rule_, weights, ordered);
    auto const out = mixed_.row(sequence.first + first + r);
    for (std::int64_t t = 0; t < sequence.length; ++t) {
      float const weight = weights[static_cast<std::size_t>(t)];
      if (weight == 0.0F) continue;  // most are
      auto const value = h.row(t);
      for (std::size_t c = 0; c < out.size(); ++c) out[c] += weight * value[c];
    }
  }
}

}  // namespace sida::inline v0::predict_detail
