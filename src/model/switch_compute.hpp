#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "sida/core/matrix.hpp"
#include "sida/core/result.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/model/switch_encoder.hpp"
#include "sida/route/routing.hpp"
#include "sida/store/expert_store.hpp"

/// The seam between the Switch encoder, which knows whose turn it is, and what computes: a CPU or a GPU. Internal.
namespace sida::inline v0::model_detail {

/// Matrices of one batch, in the memory that computes. They grow to the largest batch seen and are used again.
class SwitchBuffers {
 public:
  virtual ~SwitchBuffers() = default;
  // In host memory, after `SwitchCompute::finish`.
  Matrix<float const> hidden;  // [tokens, d_model]
  Matrix<float const> pooled;  // [sequences, d_model]
  Matrix<float const> logits;  // [sequences, labels]; no rows without a head
};

/// One batch on its way through the encoder.
struct SwitchBatch {
  std::vector<std::int32_t> ids;       // [tokens]
  std::vector<std::uint32_t> offsets;  // [sequences + 1]
  std::int64_t tokens = 0;
  std::int64_t longest = 0;  // tokens of the longest sequence
  std::uint32_t block = 0;   // block that is next; the one after the sparse one while its MoE layer is next
  HostRouting routing;       // [tokens, experts_per_token]
  std::unique_ptr<SwitchBuffers> buffers;  // made by the first `begin`

  std::int64_t sequences() const noexcept { return static_cast<std::int64_t>(offsets.size()) - 1; }
};

/// The arithmetic of the steps. Constant after its making: steps of different batches may run at the same time.
class SwitchCompute {
 public:
  virtual ~SwitchCompute() = default;
  virtual std::size_t dense_bytes() const noexcept = 0;
  virtual bool has_head() const noexcept = 0;
  /// Embeddings of `ids`, which were checked, in host memory. Reentrant. out: [ids, d_model].
  virtual void embed(std::span<std::int32_t const> ids, Matrix<float> out) const = 0;

  /// Makes room and looks up embeddings.
  virtual Status begin(SwitchBatch& batch) const = 0;
  /// In host memory, [tokens, d_model]; of a batch that has only begun.
  virtual Matrix<float const> embeddings(SwitchBatch& batch) const noexcept = 0;
  /// Blocks from batch.block up to `last`, without the MoE layer of the last one if that is sparse.
  virtual Status run_blocks(SwitchBatch& batch, ThreadPool& pool, std::uint32_t last) const = 0;
  /// The router of the block before batch.block, into batch.routing.
  virtual Status route(std::uint32_t layer, SwitchBatch& batch, ThreadPool& pool) const = 0;
  virtual Status run_moe(std::uint32_t layer, SwitchBatch& batch, ThreadPool& pool, PlanPosition position) const = 0;
  /// The final norm, the means, the head; the buffers' outputs are there afterwards.
  virtual Status finish(SwitchBatch& batch, ThreadPool& pool) const = 0;
};

/// Makes encoders of any compute. @return invalid_argument for options that no encoder takes, or a store of other
/// experts.
struct SwitchEncoderAccess {
  static Status check_options(SwitchCheckpoint const& checkpoint, ExpertStore const& store,
                              SwitchOptions const& options);
  static std::unique_ptr<SwitchEncoder> make(SwitchConfig const& config, SwitchOptions const& options,
                                             std::unique_ptr<SwitchCompute> compute);
};

/// Steps on a CPU: over weights, pools and experts in host memory.
Result<std::unique_ptr<SwitchCompute>> make_host_switch(SwitchCheckpoint const& checkpoint, ExpertStore& store,
                                                        SwitchOptions const& options, MemoryResource& memory);

}  // namespace sida::inline v0::model_detail
