#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/core/result.hpp"
#include "sida/io/tensor_source.hpp"

/// The packed container's bytes, as docs/formats.md lays them out: parsed from and written to memory.
namespace sida::inline v0::io_detail {

inline constexpr std::uint32_t kPackedVersion = 1;
inline constexpr std::size_t kPackedHeaderBytes = 4096;
inline constexpr std::size_t kPackedChecksumAt = kPackedHeaderBytes - 8;
/// Dense tensors carry one checksum for each chunk, so that a part is verified without reading the whole.
inline constexpr std::uint64_t kPackedChunkBytes = std::uint64_t{1} << 20;

// Limits on what a reader allocates.
inline constexpr std::uint64_t kPackedMaxIndexBytes = std::uint64_t{256} << 20;
inline constexpr std::uint64_t kPackedMaxConfigBytes = std::uint64_t{16} << 20;
inline constexpr std::uint64_t kPackedMaxTokenizerBytes = std::uint64_t{256} << 20;
inline constexpr std::uint32_t kPackedMaxNameBytes = 4096;
inline constexpr std::uint32_t kPackedMaxRank = 32;

/// Where a checksummed part stands in the file.
struct PackedSection {
  std::uint64_t offset = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t xxh3 = 0;
  std::uint64_t end() const noexcept { return offset + size_bytes; }
};

struct PackedHeader {
  std::uint64_t file_bytes = 0;
  PackedSection index;
  PackedSection config;
  PackedSection tokenizer;
  std::uint64_t experts_offset = 0;
  ExpertLayout layout;
  std::uint64_t stride() const noexcept { return slot_bytes_for(layout.size_bytes); }
};

struct PackedTensor {
  std::uint64_t offset = 0;
  std::vector<std::uint64_t> chunk_xxh3;
};

struct PackedIndex {
  std::vector<std::uint32_t> experts_per_layer;
  std::vector<std::uint64_t> record_xxh3;  // layer by layer
  std::vector<TensorInfo> infos;           // sorted by name
  std::vector<PackedTensor> tensors;       // of the info with the same index
};

/// Chunks of a dense tensor.
constexpr std::uint64_t chunk_count(std::uint64_t size_bytes) noexcept {
  return size_bytes / kPackedChunkBytes + (size_bytes % kPackedChunkBytes != 0 ? 1 : 0);
}

/// `page` is the file's first 4096 bytes. Everything that the header says was checked against `file_bytes`.
/// @return corrupt, unsupported (another version).
SIDA_API Result<PackedHeader> parse_packed_header(std::span<std::byte const> page, std::uint64_t file_bytes,
                                                  std::string const& name);
/// `bytes` is the index, whose checksum the caller has verified. @return corrupt, unsupported (a dtype).
SIDA_API Result<PackedIndex> parse_packed_index(std::span<std::byte const> bytes, PackedHeader const& header,
                                                std::string const& name);

SIDA_API std::array<std::byte, kPackedHeaderBytes> encode_packed_header(PackedHeader const& header);
SIDA_API std::vector<std::byte> encode_packed_index(PackedIndex const& index);

}  // namespace sida::inline v0::io_detail
