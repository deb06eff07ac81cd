#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "cli/interrupt.hpp"
#include "cli/npy.hpp"
#include "cli/output_file.hpp"
#include "sida/core/result.hpp"
#include "sida/policy/horizon.hpp"
#include "sida/route/routing.hpp"
#include "sida/route/token_batch.hpp"

namespace sida::cli {

/// The demand events of a run: one for each layer step of each batch, its experts ascending. The ground on which the
/// run's reads are judged.
class DemandLog {
 public:
  explicit DemandLog(std::uint32_t experts_per_layer) : experts_per_layer_(experts_per_layer) {}

  void routed(std::uint32_t layer, Routing<> routing);

  std::vector<std::vector<ExpertIndex>> const& events() const noexcept { return events_; }

 private:
  std::uint32_t experts_per_layer_;
  std::vector<std::vector<ExpertIndex>> events_;
  std::vector<std::uint8_t> demanded_;  // [experts_per_layer], of the event at hand
};

/// What a recorded run was, for meta.json.
struct RecordMeta {
  std::string model;
  std::uint32_t moe_layers = 0;
  std::uint32_t experts = 0;  ///< of each layer
  std::int64_t top_k = 1;
  std::uint32_t slots = 0;
  std::uint64_t slot_bytes = 0;
};

/// Writes routings to a folder: experts.npy (uint16 [tokens, MoE layers, k], 65535 = absent), seqs.jsonl (offset,
/// n_tokens and batch of each sequence) and meta.json. The files appear together at the end; a folder that was made
/// for them goes with them when there is none.
class RoutingRecord {
 public:
  /// Where the files of a record in `folder` go: experts, sequences, meta. For no folder, empty names.
  static std::array<std::string, 3> paths_in(std::string const& folder);
  /// @return io.
  static Result<RoutingRecord> create(std::string const& folder, RecordMeta meta);
  RoutingRecord(RoutingRecord&&) = default;
  RoutingRecord& operator=(RoutingRecord&&) = delete;

  void routed(std::uint32_t layer, Routing<> routing);
  /// All layers of `batch` are routed. @return io.
  Status finished(TokenBatch const& batch);
  /// As those of `OutputFile`. @return io.
  Status finish();
  Status publish();

 private:
  /// A folder that is removed again, if it is empty, unless kept.
  struct Folder {
    std::string path;  // empty: not ours to remove
    RemovedWhenKilled guard;
    Folder() = default;
    Folder(Folder&& other) noexcept : path(std::move(other.path)), guard(std::move(other.guard)) { other.path.clear(); }
    Folder& operator=(Folder&&) = delete;
    ~Folder();
  };

  RoutingRecord(Folder folder, RecordMeta meta, NpyWriter experts, OutputFile sequences, OutputFile meta_file)
      : folder_(std::move(folder)),
        meta_(std::move(meta)),
        experts_(std::move(experts)),
        sequences_(std::move(sequences)),
        meta_file_(std::move(meta_file)) {}

  Folder folder_;  // first, so that its files are gone before it
  RecordMeta meta_;
  NpyWriter experts_;
  OutputFile sequences_;
  OutputFile meta_file_;
  std::vector<std::uint16_t> rows_;  // [tokens, MoE layers, k] of the batch at hand
};

}  // namespace sida::cli
