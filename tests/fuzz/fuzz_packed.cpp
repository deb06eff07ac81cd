#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "io/checksum.hpp"
#include "io/packed_format.hpp"

namespace {

namespace io = sida::io_detail;

/// Whatever is accepted lies in the file, each part after the last.
void check(io::PackedHeader const& header, io::PackedIndex const& index, std::uint64_t file_bytes) {
  std::uint64_t used = header.tokenizer.end();
  for (std::size_t i = 0; i < index.infos.size(); ++i) {
    if (index.tensors[i].offset < used) std::abort();
    used = index.tensors[i].offset + index.infos[i].size_bytes;
    if (index.tensors[i].chunk_xxh3.size() != io::chunk_count(index.infos[i].size_bytes)) std::abort();
  }
  if (used > header.experts_offset) std::abort();
  if (header.experts_offset + index.record_xxh3.size() * header.stride() != file_bytes) std::abort();
}

}  // namespace

/// The first 256 bytes of the input are the front of the header, the rest is what follows the header page. The
/// checksums are made right, since no fuzzer finds one. A file's size is what the header says.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  constexpr std::size_t kFront = 256;
  auto const input = std::as_bytes(std::span(data, size));
  (void)io::parse_packed_header(input, size, "fuzz").status();
  if (size < kFront) return 0;

  std::vector<std::byte> page(io::kPackedHeaderBytes);
  std::memcpy(page.data(), input.data(), kFront);
  std::uint64_t const checksum = io::xxh3_64(std::span(page).first(io::kPackedChecksumAt));
  std::memcpy(page.data() + io::kPackedChecksumAt, &checksum, sizeof checksum);
  std::uint64_t file_bytes = 0;
  std::memcpy(&file_bytes, page.data() + 16, sizeof file_bytes);
  auto header = io::parse_packed_header(page, file_bytes, "fuzz");
  if (!header) return 0;
  auto const rest = input.subspan(kFront);
  if (header->index.size_bytes > rest.size()) return 0;
  auto const index = io::parse_packed_index(rest.first(header->index.size_bytes), *header, "fuzz");
  if (!index) return 0;
  check(*header, *index, file_bytes);
  // What was understood is written back as the same bytes.
  auto const again = io::encode_packed_index(*index);
  if (again.size() != header->index.size_bytes || std::memcmp(again.data(), rest.data(), again.size()) != 0)
    std::abort();
  return 0;
}
