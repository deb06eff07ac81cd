#include <atomic>

#include "model/switch_ops.hpp"
#include "model/transpose.hpp"

namespace sida::inline v0::model_detail {
namespace {

// Queries whose scores are held at once: long sequences need no [tokens, tokens] matrix.
constexpr std::int64_t kQueryRows = 64;

constexpr std::int64_t round_up_16(std::int64_t count) noexcept { return ceil_div(count, 16) * 16; }
static_assert(SoftmaxArgs::kRoom == 16);

/// Scratch of one lane.
struct Lane {
  float* scores;  // [kQueryRows, longest, rounded up to 16]
  float* keys;    // [d_kv, longest], one head's k, transposed
  float* bias;    // [2 * longest - 1, and 16 more], one head's bias by key position - query position
};

Lane lane_at(AttentionArgs const& args, float* scratch, std::int64_t lane) noexcept {
  float* const start = scratch + lane * attention_scratch(1, args.d_kv, args.longest);
  float* const keys = start + kQueryRows * round_up_16(args.longest);
  return {start, keys, keys + round_up_16(args.d_kv * args.longest)};
}

/// The bias of one head for every distance within a sequence, into lane.bias. @return that of distance 0.
float const* spread_bias(AttentionArgs const& args, std::int64_t tokens, std::int64_t head, Lane const& lane) noexcept {
  float* const middle = lane.bias + tokens - 1;
  float const* const of_head = args.position_bias + head;
  for (std::int64_t away = 0; away < tokens; ++away) {
    std::int64_t const before = args.position_buckets[std::min(away, args.max_distance)];
    middle[-away] = of_head[before * args.heads];
    if (away > 0) middle[away] = of_head[(before + args.buckets / 2) * args.heads];
  }
  return middle;
}

/// One head of one sequence, whose tokens start at `first`.
void attend(AttentionArgs const& args, std::int64_t first, std::int64_t tokens, std::int64_t head,
            Lane const& lane) noexcept {
  std::int64_t const column = head * args.d_kv;
  transpose({args.k.data + first * args.k.stride + column, tokens, args.d_kv, args.k.stride},
            {lane.keys, args.d_kv, tokens});
  float const* const bias = spread_bias(args, tokens, head, lane);
  for (std::int64_t query = 0; query < tokens; query += kQueryRows) {
    if (args.stop.stop_requested()) return;
    std::int64_t const queries = std::min(kQueryRows, tokens - query);
    Matrix<float> const scores(lane.scores, queries, tokens, round_up_16(tokens));
    gemm_nn(args.isa, {.x = args.q.data + (first + query) * args.q.stride + column,
                       .x_stride = args.q.stride,
                       .b = lane.keys,
                       .b_stride = tokens,
                       .y = scores.data,
                       .y_stride = scores.stride,
                       .m = queries,
                       .n = tokens,
                       .k = args.d_kv});
    for (std::int64_t i = 0; i < queries; ++i) {
      softmax(args.isa, {.bias = bias - (query + i), .row = scores.row(i).data(), .count = tokens});
    }
    gemm_nn(args.isa, {.x = scores.data,
                       .x_stride = scores.stride,
                       .b = args.v.data + first * args.v.stride + column,
                       .b_stride = args.v.stride,
                       .y = args.context.data + (first + query) * args.context.stride + column,
                       .y_stride = args.context.stride,
                       .m = queries,
                       .n = args.d_kv,
                       .k = tokens});
  }
}

std::int64_t attention_units(AttentionArgs const& args) noexcept {
  return (static_cast<std::int64_t>(args.offsets.size()) - 1) * args.heads;
}

}  // namespace

std::int64_t attention_scratch(std::int64_t lanes, std::int64_t d_kv, std::int64_t longest) noexcept {
  return lanes * (kQueryRows * round_up_16(longest) + round_up_16(d_kv * longest) + round_up_16(2 * longest) + 16);
}

std::int64_t attention_lanes(ThreadPool& pool, AttentionArgs const& args) noexcept {
  return std::min(static_cast<std::int64_t>(pool.concurrency()), attention_units(args));
}

void run_attention(ThreadPool& pool, AttentionArgs const& args, float* scratch) {
  // A lane has scratch of its own and takes the next (sequence, head) until none is left: sequences differ in length.
  std::int64_t const units = attention_units(args);
  std::atomic<std::int64_t> next = 0;
  auto const task = [&](std::size_t number) {
    Lane const lane = lane_at(args, scratch, static_cast<std::int64_t>(number));
    for (std::int64_t unit = next.fetch_add(1); unit < units; unit = next.fetch_add(1)) {
      auto const sequence = static_cast<std::size_t>(unit / args.heads);
      std::int64_t const first = args.offsets[sequence];
      attend(args, first, std::int64_t{args.offsets[sequence + 1]} - first, unit % args.heads, lane);
    }
  };
  pool.run(static_cast<std::size_t>(attention_lanes(pool, args)), task);
}

}  // namespace sida::inline v0::model_detail
