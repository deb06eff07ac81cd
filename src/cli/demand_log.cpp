#include "cli/demand_log.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "sida/detail/try.hpp"

namespace sida::cli {

void DemandLog::routed(std::uint32_t layer, Routing<> routing) {
  demanded_.assign(experts_per_layer_, 0);
  for (std::int64_t t = 0; t < routing.tokens(); ++t) {
    for (std::uint16_t const expert : routing.experts.row(t)) {
      if (expert != kNoExpert) demanded_[expert] = 1;
    }
  }
  std::vector<ExpertIndex> event;
  for (std::uint32_t expert = 0; expert < experts_per_layer_; ++expert) {
    if (demanded_[expert] != 0) event.push_back(layer * experts_per_layer_ + expert);
  }
  events_.push_back(std::move(event));
}

RoutingRecord::Folder::~Folder() {
  if (!path.empty()) ::rmdir(path.c_str());
}

std::array<std::string, 3> RoutingRecord::paths_in(std::string const& folder) {
  if (folder.empty()) return {};
  return {folder + "/experts.npy", folder + "/seqs.jsonl", folder + "/meta.json"};
}

Result<RoutingRecord> RoutingRecord::create(std::string const& folder, RecordMeta meta) {
  Folder made;
  if (::mkdir(folder.c_str(), 0777) == 0) {
    made.path = folder;
    made.guard = RemovedWhenKilled(folder);
  } else if (errno != EEXIST) {
    return Error(Errc::io, folder + ": cannot make this folder: " + std::strerror(errno));
  }
  std::vector<std::uint64_t> const row_shape = {meta.moe_layers, static_cast<std::uint64_t>(meta.top_k)};
  auto const [experts_path, sequences_path, meta_path] = paths_in(folder);
  SIDA_TRY_ASSIGN(auto experts, NpyWriter::create(experts_path, NpyType::u16, row_shape));
  SIDA_TRY_ASSIGN(auto sequences, OutputFile::create(sequences_path));
  SIDA_TRY_ASSIGN(auto meta_file, OutputFile::create(meta_path));
  return RoutingRecord(std::move(made), std::move(meta), std::move(experts), std::move(sequences),
                       std::move(meta_file));
}

void RoutingRecord::routed(std::uint32_t layer, Routing<> routing) {
  auto const k = static_cast<std::size_t>(meta_.top_k);
  std::size_t const row = meta_.moe_layers * k;
  auto const tokens = static_cast<std::size_t>(routing.tokens());
  if (layer == 0) rows_.assign(tokens * row, kNoExpert);
  for (std::size_t t = 0; t < tokens; ++t) {
    auto const experts = routing.experts.row(static_cast<std::int64_t>(t));
    std::ranges::copy(experts, rows_.begin() + static_cast<std::ptrdiff_t>(t * row + layer * k));
  }
}

Status RoutingRecord::finished(TokenBatch const& batch) {
  std::uint64_t const first = experts_.rows();
  SIDA_TRY(experts_.append(std::span<std::uint16_t const>(rows_)));
  for (std::size_t s = 0; s + 1 < batch.sequence_offsets.size(); ++s) {
    std::uint32_t const begin = batch.sequence_offsets[s];
    nlohmann::ordered_json const line = {
        {"offset", first + begin}, {"n_tokens", batch.sequence_offsets[s + 1] - begin}, {"batch", batch.number}};
    SIDA_TRY(sequences_.write(line.dump() + "\n"));
  }
  return {};
}

Status RoutingRecord::finish() {
  nlohmann::ordered_json const meta = {{"model", meta_.model},
                                       {"n_moe_layers", meta_.moe_layers},
                                       {"n_experts", meta_.experts},
                                       {"top_k", meta_.top_k},
                                       {"event", "batch"},
                                       {"slots", meta_.slots},
                                       {"slot_bytes", meta_.slot_bytes},
                                       {"experts", "experts.npy uint16 [tokens, MoE layers, k], 65535 = absent"}};
  SIDA_TRY(meta_file_.write(meta.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n"));
  SIDA_TRY(experts_.finish());
  SIDA_TRY(sequences_.finish());
  return meta_file_.finish();
}

Status RoutingRecord::publish() {
  SIDA_TRY(experts_.publish());
  SIDA_TRY(sequences_.publish());
  SIDA_TRY(meta_file_.publish());
  folder_.path.clear();
  return {};
}

}  // namespace sida::cli
