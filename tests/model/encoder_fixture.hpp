#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "sida/core/memory.hpp"
#include "sida/model/switch_checkpoint.hpp"
#include "sida/model/switch_encoder.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::testing {

/// The value, or an exception with the message, which fails the test.
template <class T>
T value_of(Result<T> result) {
  if (!result) throw std::runtime_error(result.message());
  return *std::move(result);
}
inline void must(Status const& status) {
  if (!status) throw std::runtime_error(status.message());
}

/// An encoder and its store. `slots` 0: room for all experts.
struct LoadedEncoder {
  SwitchCheckpoint checkpoint;
  HostMemory memory;
  std::unique_ptr<ExpertStore> store;
  std::unique_ptr<SwitchEncoder> encoder;

  explicit LoadedEncoder(std::string const& path, std::uint64_t slots = 0, SwitchOptions const& options = {})
      : checkpoint(value_of(open_switch_checkpoint(path, ReadPath::pread))) {
    StoreOptions store_options;
    store_options.budget_bytes =
        slot_bytes_for(checkpoint.layout.size_bytes) * (slots == 0 ? checkpoint.expert_count() : slots);
    store =
        value_of(ExpertStore::open(*checkpoint.experts, make_host_tier(checkpoint.experts, memory, 1), store_options));
    encoder = value_of(SwitchEncoder::load(checkpoint, *store, options, memory));
  }
};

/// All steps of one batch. Its first MoE layer is at `position`, the others follow.
inline void run_batch(SwitchEncoder& encoder, TokenBatch const& batch, SwitchEncoder::State& state, ThreadPool& pool,
                      PlanPosition position = {}) {
  must(encoder.begin(batch, state));
  for (std::uint32_t layer = 0; layer < encoder.moe_layers(); ++layer) {
    must(encoder.run_to(layer, state, pool));
    must(encoder.route(layer, state, pool));
    must(encoder.run_moe(layer, state, pool, position));
    ++position.event;
  }
  must(encoder.finish(state, pool));
}

/// The bytes of all outputs.
inline std::string output_bytes(SwitchEncoder::State const& state) {
  std::string bytes;
  for (auto const& matrix : {state.hidden(), state.pooled(), state.logits()}) {
    for (std::int64_t r = 0; r < matrix.rows; ++r) {
      auto const row = std::as_bytes(matrix.row(r));
      bytes.append(reinterpret_cast<char const*>(row.data()), row.size());
    }
  }
  return bytes;
}

/// Sequences of pseudo-random ids, of these lengths.
inline TokenBatch random_batch(std::vector<std::size_t> const& lengths, std::int64_t vocab_size, std::uint32_t seed) {
  TokenBatch batch;
  batch.number = seed;
  std::uint32_t next = seed * 2654435761U + 1;
  for (std::size_t const length : lengths) {
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < length; ++i) {
      next = next * 1664525U + 1013904223U;
      ids.push_back(static_cast<std::int32_t>((next >> 8) % static_cast<std::uint32_t>(vocab_size)));
    }
    batch.append(ids);
  }
  return batch;
}

}  // namespace sida::testing
