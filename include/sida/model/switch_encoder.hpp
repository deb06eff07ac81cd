#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>

#include "sida/core/api.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/kernels/cpu.hpp"
#include "sida/model/switch_checkpoint.hpp"
#include "sida/model/switch_config.hpp"
#include "sida/route/router.hpp"
#include "sida/route/routing.hpp"
#include "sida/route/token_batch.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::inline v0 {

namespace model_detail {
struct SwitchEncoderAccess;
}

/// Who fills `SwitchEncoder::routing`.
enum class SwitchRouting : std::uint8_t {
  router,  ///< `route`, by the model's own router: one expert per token
  given,   ///< the caller, for SiDA's predicted mode: routers are not even loaded, and there is no capacity
};

struct SwitchOptions {
  SwitchRouting routing = SwitchRouting::router;
  std::int64_t experts_per_token = 1;  ///< columns of `routing`; more than 1 only where it is given
  CapacityRule capacity_rule = CapacityRule::hf;
  std::optional<std::int64_t> expert_capacity = {};  ///< in place of the config's
  CpuIsa isa = best_cpu_isa();
  bool outputs_hidden = true;  ///< whether `State::hidden` is wanted: a GPU copies it for each batch otherwise in vain
  /// Ends a long batch early: a step returns `cancelled`, and the state has no batch then. On a CPU it is asked within
  /// each step, many times a second; on a GPU once a step.
  std::stop_token stop = {};
};

/// The encoder of a Switch Transformer, with its classification head if it has one; the experts stay in a store. What
/// is said here is of one on a CPU; `cuda::load_switch_encoder` makes one on a GPU, and says what differs. It steps
/// (see `SteppingModel`), so that the caller orders the steps of one batch or of a window of batches. Computes in
/// float32 whatever the weights' type, as transformers 5.24 does with dtype=torch.float32; but avx512_bf16 and amx_bf16
/// round what bf16 weights of attention, dense blocks and experts are multiplied with (transformers rounds more with
/// dtype=torch.bfloat16). Sequences are ragged: there is no padding, so nothing is computed for it. Output bytes depend
/// on the batch, the weights and the instruction set; not on threads, the store's budget or the interleaving of steps.
/// The encoder does not change after `load`: steps of different states may run at the same time on different threads
/// and pools. One state is used by one thread at a time.
class SIDA_API SwitchEncoder {
 public:
  class State;

  /// Reads the dense weights into one block of `memory`, in the types that they have on disk. `store` holds the
  /// experts of `checkpoint`, in host memory. Store and memory must outlive the encoder and its states.
  /// @return io, corrupt, out_of_memory; invalid_argument when the store is not of these experts or not of host memory.
  static Result<std::unique_ptr<SwitchEncoder>> load(SwitchCheckpoint const& checkpoint, ExpertStore& store,
                                                     SwitchOptions const& options, MemoryResource& memory);
  ~SwitchEncoder();
  SwitchEncoder(SwitchEncoder const&) = delete;
  SwitchEncoder& operator=(SwitchEncoder const&) = delete;

  SwitchConfig const& config() const noexcept;
  bool has_head() const noexcept;
  std::uint32_t moe_layers() const noexcept;
  /// Bytes that the dense weights occupy in memory.
  std::size_t dense_bytes() const noexcept;

  // The steps. Each returns invalid_argument, and leaves the state as it is, when it is not the state's turn.

  /// Word embeddings of `ids`, what a hash function reads. out: [ids, d_model]. Reentrant, and apart from any state.
  /// @return invalid_argument for an id outside of the vocabulary or another shape of `out`.
  Status embed(std::span<std::int32_t const> ids, Matrix<float> out) const;

  /// Looks up embeddings. @return invalid_argument for an id outside of the vocabulary, an empty sequence or a batch
  /// without sequences; out_of_memory. After a failure the state has no batch.
  Status begin(TokenBatch const& batch, State& state) const;
  /// [tokens, d_model]; until the next step of the state.
  Matrix<float const> embeddings(State& state) const noexcept;
  /// Runs everything before MoE layer `layer`, which must be the state's next one. The routing is then "no expert,
  /// weight 0" throughout, until `route` or the caller fills it. After a failure the state has no batch.
  Status run_to(std::uint32_t layer, State& state, ThreadPool& pool) const;
  /// The router's decision for MoE layer `layer`, into `routing(state)`.
  /// @return invalid_argument where the routing is given.
  Status route(std::uint32_t layer, State& state, ThreadPool& pool) const;
  /// [tokens, experts_per_token]
  Routing<> routing(State& state) const noexcept;
  /// Runs the experts that `routing(state)` names. Blocks while they are loaded. After a failure of the store the step
  /// may be called again. @return also invalid_argument for an expert that there isn't, and what the store returns.
  Status run_moe(std::uint32_t layer, State& state, ThreadPool& pool, PlanPosition position) const;
  /// Runs the rest: blocks after the last MoE layer, the final norm, the mean over each sequence's tokens, the head.
  /// After a failure the state has no batch.
  Status finish(State& state, ThreadPool& pool) const;

 private:
  friend struct model_detail::SwitchEncoderAccess;
  struct Impl;
  explicit SwitchEncoder(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

/// All that one batch needs, and its outputs. Buffers grow to the largest batch seen and are used again. Move-only.
/// The outputs are there from a successful `finish` until the next `begin`; before, they have no rows.
class SIDA_API SwitchEncoder::State {
 public:
  State() noexcept;
  State(State&&) noexcept;
  State& operator=(State&&) noexcept;
  ~State();

  std::int64_t tokens() const noexcept;
  std::int64_t sequences() const noexcept;
  Matrix<float const> hidden() const noexcept;  ///< [tokens, d_model], after the final norm
  Matrix<float const> pooled() const noexcept;  ///< [sequences, d_model], mean of `hidden` over each sequence
  Matrix<float const> logits() const noexcept;  ///< [sequences, num_labels]; no rows without a head

 private:
  friend class SwitchEncoder;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sida::inline v0
