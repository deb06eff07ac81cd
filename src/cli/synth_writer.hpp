#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "cli/output_file.hpp"
#include "cli/synth_tensors.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/result.hpp"
#include "sida/core/thread_pool.hpp"

namespace sida::cli {

struct SynthCallbacks {
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress;  ///< may be empty
  std::function<bool()> cancelled;                                                    ///< may be empty
};

/// How the header's JSON begins in every file that `write_synth_tensors` writes, and in no other: such weights may be
/// replaced without asking. Without the "format" transformers refuses the file.
inline constexpr std::string_view kSynthHeaderStart = R"({"__metadata__":{"format":"pt","made_by":"sida synth"})";

/// Writes `tensors` as one safetensors file: the header, then the values as they are made, a few MiB at a time. The
/// bytes do not depend on the pool. Does not commit. @return io, cancelled.
Status write_synth_tensors(std::span<SynthTensor const> tensors, Dtype dtype, ThreadPool& pool,
                           SynthCallbacks const& callbacks, OutputFile& file);

}  // namespace sida::cli
