#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/core/result.hpp"
#include "sida/io/expert_source.hpp"
#include "sida/io/tensor_source.hpp"

namespace sida::inline v0 {

/// One entry of a safetensors header.
struct SafetensorsEntry {
  TensorInfo info;
  std::uint64_t file_offset = 0;  ///< from the start of the file
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;        ///< sorted by name
  std::map<std::string, std::string> metadata;  ///< "__metadata__"
};

/// Parses the header of a safetensors file (8 bytes little-endian length, then JSON).
/// `prefix` holds at least the length and the JSON; `file_bytes` is the size of the whole file; `name` is for
/// messages. Rejects everything that the format forbids: see docs/formats.md. @return corrupt, unsupported.
SIDA_API Result<SafetensorsHeader> parse_safetensors_header(std::span<std::byte const> prefix, std::uint64_t file_bytes,
                                                            std::string const& name);

/// Opens `path`: a .safetensors file, or a folder with model.safetensors or else model.safetensors.index.json, whose
/// weight_map alone then says which tensors there are. Reads headers only.
/// @return not_found, io, corrupt, unsupported.
SIDA_API Result<std::unique_ptr<TensorSource>> open_safetensors(std::string const& path, ReadPath read_path);

/// Names of the matrices of one expert; `gate` is empty unless the kind is swiglu.
struct ExpertTensorNames {
  std::string gate, in, out;
};

/// Experts whose matrices are tensors of a checkpoint, one each, all of `layout`'s shape and dtype.
/// `names[layer][expert]`. Checks presence, dtype and shape of each. A record holds zeros between its matrices, so
/// it is the same bytes as in a packed container. `read_stats` are those of `tensors`, whoever read through it:
/// open the checkpoint a second time to count experts alone. @return not_found, corrupt.
SIDA_API Result<std::unique_ptr<ExpertSource>> make_tensor_expert_source(
    std::shared_ptr<TensorSource const> tensors, ExpertLayout const& layout,
    std::vector<std::vector<ExpertTensorNames>> const& names);

}  // namespace sida::inline v0
