#include "io/packed_format.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <utility>

#include "io/checksum.hpp"
#include "io/json.hpp"
#include "io/tensor_size.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::io_detail {
namespace {

static_assert(std::endian::native == std::endian::little, "the container's integers are read as they stand");

/// First byte outside of ASCII and a line end inside: a transfer as text shows at once.
constexpr std::array<unsigned char, 8> kMagic{0x89, 'S', 'I', 'D', 'A', '\r', '\n', 0x1A};

/// Takes integers and strings from the front of a block; remembers where it ran out.
class Cursor {
 public:
  explicit Cursor(std::span<std::byte const> bytes) : bytes_(bytes) {}

  std::size_t position() const noexcept { return position_; }
  std::size_t remaining() const noexcept { return bytes_.size() - position_; }

  template <class T>
  requires std::is_integral_v<T>
  bool take(T& value) noexcept {
    if (remaining() < sizeof(T)) return false;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return true;
  }
  /// `count` integers. Nothing is allocated unless all of them are there.
  template <class T>
  bool take(std::vector<T>& values, std::uint64_t count) {
    if (remaining() / sizeof(T) < count) return false;
    values.resize(static_cast<std::size_t>(count));
    if (count != 0) std::memcpy(values.data(), bytes_.data() + position_, values.size() * sizeof(T));
    position_ += values.size() * sizeof(T);
    return true;
  }
  bool take(std::string& text, std::uint32_t bytes) {
    if (remaining() < bytes) return false;
    text.assign(reinterpret_cast<char const*>(bytes_.data()) + position_, bytes);
    position_ += bytes;
    return true;
  }

 private:
  std::span<std::byte const> bytes_;
  std::size_t position_ = 0;
};

class Writer {
 public:
  template <class T>
  requires std::is_integral_v<T>
  void put(T value) { put_bytes(&value, sizeof value); }
  void put_bytes(void const* data, std::size_t size) {
    auto const* const first = static_cast<std::byte const*>(data);
    bytes_.insert(bytes_.end(), first, first + size);
  }
  template <class T>
  void put_all(std::vector<T> const& values) {
    put_bytes(values.data(), values.size() * sizeof(T));
  }
  std::vector<std::byte> take() && { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

Error bad_header(std::string const& name, std::size_t byte, std::string const& why) {
  return {Errc::corrupt, name + ": header byte " + std::to_string(byte) + ": " + why};
}

/// `section` begins at or after `*used` and ends in the file; `*used` becomes its end.
Status check_section(PackedSection const& section, std::uint64_t max_bytes, std::uint64_t file_bytes,
                     std::uint64_t* used, std::string const& what) {
  bool const fits = section.offset >= *used && section.offset <= file_bytes &&
                    section.size_bytes <= file_bytes - section.offset && section.size_bytes <= max_bytes;
  if (!fits) {
    return Error(Errc::corrupt, what + " of " + std::to_string(section.size_bytes) + " bytes at offset " +
                                    std::to_string(section.offset) + " is out of place or too large");
  }
  *used = section.end();
  return {};
}

struct RawExperts {
  std::uint64_t stride = 0;
  std::uint64_t record_bytes = 0;
  std::uint32_t kind = 0;
  std::uint32_t dtype = 0;
  std::int64_t d_model = 0;
  std::int64_t d_ff = 0;
  std::uint64_t chunk_bytes = 0;
};

Result<ExpertLayout> check_layout(RawExperts const& raw, std::string const& name) {
  if (raw.kind > static_cast<std::uint32_t>(FfnKind::swiglu)) {
    return bad_header(name, 112, "FFN kind " + std::to_string(raw.kind));
  }
  if (raw.dtype > static_cast<std::uint32_t>(Dtype::bf16)) {
    return bad_header(name, 116, "dtype " + std::to_string(raw.dtype));
  }
  auto const layout =
      ExpertLayout::of({static_cast<FfnKind>(raw.kind), static_cast<Dtype>(raw.dtype), raw.d_model, raw.d_ff});
  if (!layout) return bad_header(name, 120, layout.message());
  if (raw.record_bytes != layout->size_bytes || raw.stride != slot_bytes_for(layout->size_bytes)) {
    return bad_header(name, 96,
                      "records of " + std::to_string(raw.record_bytes) + " bytes every " + std::to_string(raw.stride) +
                          ", where the shape takes " + std::to_string(layout->size_bytes));
  }
  if (raw.chunk_bytes != kPackedChunkBytes) return bad_header(name, 136, "chunk of another size");
  return *layout;
}

}  // namespace

Result<PackedHeader> parse_packed_header(std::span<std::byte const> page, std::uint64_t file_bytes,
                                         std::string const& name) {
  std::size_t const there = std::min(page.size(), kMagic.size());
  if (there > 0 && std::memcmp(page.data(), kMagic.data(), there) != 0) {
    return bad_header(name, 0, "not a packed container of sida; a checkpoint in safetensors is named by its folder");
  }
  if (page.size() < kPackedHeaderBytes) return bad_header(name, page.size(), "the file ends inside of the header");
  // Magic, version and checksum stand at these places in every version, so damage is told from novelty.
  std::uint64_t checksum = 0;
  std::memcpy(&checksum, page.data() + kPackedChecksumAt, sizeof checksum);
  if (checksum != xxh3_64(page.first(kPackedChecksumAt))) {
    return bad_header(name, kPackedChecksumAt, "checksum of the header does not match");
  }
  Cursor cursor(page.subspan(kMagic.size(), kPackedChecksumAt - kMagic.size()));
  std::uint32_t version = 0;
  std::uint32_t reserved = 0;
  PackedHeader header;
  RawExperts raw;
  cursor.take(version);
  if (version != kPackedVersion) {
    return Error(Errc::unsupported, name + ": header byte 8: container version " + std::to_string(version) +
                                        ", this library reads version " + std::to_string(kPackedVersion));
  }
  header.index.offset = kPackedHeaderBytes;
  // All of these fit the page, so no take fails.
  cursor.take(reserved), cursor.take(header.file_bytes), cursor.take(header.index.size_bytes);
  cursor.take(header.index.xxh3);
  for (PackedSection* const section : {&header.config, &header.tokenizer}) {
    cursor.take(section->offset), cursor.take(section->size_bytes), cursor.take(section->xxh3);
  }
  cursor.take(header.experts_offset), cursor.take(raw.stride), cursor.take(raw.record_bytes), cursor.take(raw.kind);
  cursor.take(raw.dtype), cursor.take(raw.d_model), cursor.take(raw.d_ff), cursor.take(raw.chunk_bytes);

  if (header.file_bytes != file_bytes) {
    return bad_header(
        name, 16,
        "the file has " + std::to_string(file_bytes) + " bytes instead of " + std::to_string(header.file_bytes));
  }
  std::uint64_t used = kPackedHeaderBytes;
  SIDA_TRY(check_section(header.index, kPackedMaxIndexBytes, file_bytes, &used, name + ": header byte 24: index"));
  SIDA_TRY(check_section(header.config, kPackedMaxConfigBytes, file_bytes, &used, name + ": header byte 40: config"));
  SIDA_TRY(check_section(header.tokenizer, kPackedMaxTokenizerBytes, file_bytes, &used,
                         name + ": header byte 64: tokenizer"));
  if (header.experts_offset < used || header.experts_offset > file_bytes ||
      header.experts_offset % kRecordAlignment != 0) {
    return bad_header(name, 88, "records at offset " + std::to_string(header.experts_offset));
  }
  SIDA_TRY_ASSIGN(header.layout, check_layout(raw, name));
  return header;
}

namespace {

class IndexParser {
 public:
  IndexParser(std::span<std::byte const> bytes, PackedHeader const& header, std::string const& name)
      : cursor_(bytes), header_(header), name_(name), used_(header.tokenizer.end()) {}

  Result<PackedIndex> parse() {
    std::uint32_t tensors = 0;
    SIDA_TRY(take_experts(&tensors));
    for (std::uint32_t i = 0; i < tensors; ++i) SIDA_TRY(take_tensor());
    if (cursor_.remaining() != 0) return bad("bytes are left over");
    return std::move(index_);
  }

 private:
  Status take_experts(std::uint32_t* tensors);
  Status take_tensor();
  Error bad(std::string const& why) const { return {Errc::corrupt, at() + why}; }
  std::string at() const {
    return name_ + ": index byte " + std::to_string(kPackedHeaderBytes + cursor_.position()) + ": ";
  }

  Cursor cursor_;
  PackedHeader const& header_;
  std::string const& name_;
  std::uint64_t used_;  // end of the last part before the next tensor
  PackedIndex index_;
};

Status IndexParser::take_experts(std::uint32_t* tensors) {
  std::uint32_t layers = 0;
  if (!cursor_.take(layers) || !cursor_.take(*tensors) || !cursor_.take(index_.experts_per_layer, layers)) {
    return bad("ends inside of the layers");
  }
  std::uint64_t records = 0;  // at most 2^26 layers (the index's limit) of 2^32 experts: no overflow
  for (std::uint32_t const count : index_.experts_per_layer) records += count;
  if (!cursor_.take(index_.record_xxh3, records)) return bad("ends inside of the records' checksums");
  // Divided, not multiplied: the product could overflow.
  std::uint64_t const room = header_.file_bytes - header_.experts_offset;
  if (room % header_.stride() != 0 || room / header_.stride() != records) {
    return bad(std::to_string(records) + " records do not fill the " + std::to_string(room) + " bytes from offset " +
               std::to_string(header_.experts_offset));
  }
  return {};
}

Status IndexParser::take_tensor() {
  std::uint32_t name_bytes = 0;
  std::uint32_t dtype_bytes = 0;
  std::uint32_t rank = 0;
  TensorInfo info;
  PackedTensor tensor;
  if (!cursor_.take(name_bytes) || !cursor_.take(dtype_bytes) || !cursor_.take(rank)) return bad("ends in a tensor");
  if (name_bytes > kPackedMaxNameBytes || dtype_bytes > kPackedMaxNameBytes || rank > kPackedMaxRank) {
    return bad("a tensor's name or rank is too large");
  }
  if (!cursor_.take(info.name, name_bytes) || !cursor_.take(info.dtype_name, dtype_bytes) ||
      !cursor_.take(info.shape, rank) || !cursor_.take(tensor.offset) || !cursor_.take(info.size_bytes)) {
    return bad("ends in a tensor");
  }
  std::string const what = "tensor " + in_quotes(info.name);
  if (!index_.infos.empty() && index_.infos.back().name >= info.name) return bad(what + " is out of order");
  for (std::int64_t const dimension : info.shape) {
    if (dimension < 0) return bad(what + " has a negative dimension");
  }
  SIDA_TRY_ASSIGN(std::uint64_t const bytes, tensor_bytes(info.dtype_name, info.shape, at() + what));
  if (bytes != info.size_bytes) return bad(what + " has another size than its shape");
  bool const fits = tensor.offset % kRecordAlignment == 0 && tensor.offset >= used_ &&
                    tensor.offset <= header_.experts_offset && bytes <= header_.experts_offset - tensor.offset;
  if (!fits) return bad(what + " at offset " + std::to_string(tensor.offset) + " is out of place");
  if (!cursor_.take(tensor.chunk_xxh3, chunk_count(bytes))) return bad("ends inside of checksums of " + what);
  used_ = tensor.offset + bytes;
  index_.infos.push_back(std::move(info));
  index_.tensors.push_back(std::move(tensor));
  return {};
}

}  // namespace

Result<PackedIndex> parse_packed_index(std::span<std::byte const> bytes, PackedHeader const& header,
                                       std::string const& name) {
  return IndexParser(bytes, header, name).parse();
}

std::array<std::byte, kPackedHeaderBytes> encode_packed_header(PackedHeader const& header) {
  Writer writer;
  writer.put_bytes(kMagic.data(), kMagic.size());
  writer.put(kPackedVersion);
  writer.put(std::uint32_t{0});
  writer.put(header.file_bytes);
  writer.put(header.index.size_bytes);
  writer.put(header.index.xxh3);
  for (PackedSection const* const section : {&header.config, &header.tokenizer}) {
    writer.put(section->offset);
    writer.put(section->size_bytes);
    writer.put(section->xxh3);
  }
  writer.put(header.experts_offset);
  writer.put(header.stride());
  writer.put(std::uint64_t{header.layout.size_bytes});
  writer.put(static_cast<std::uint32_t>(header.layout.shape.kind));
  writer.put(static_cast<std::uint32_t>(header.layout.shape.dtype));
  writer.put(header.layout.shape.d_model);
  writer.put(header.layout.shape.d_ff);
  writer.put(kPackedChunkBytes);
  auto const fields = std::move(writer).take();
  std::array<std::byte, kPackedHeaderBytes> page{};
  std::memcpy(page.data(), fields.data(), fields.size());
  std::uint64_t const checksum = xxh3_64(std::span(page).first(kPackedChecksumAt));
  std::memcpy(page.data() + kPackedChecksumAt, &checksum, sizeof checksum);
  return page;
}

std::vector<std::byte> encode_packed_index(PackedIndex const& index) {
  Writer writer;
  writer.put(static_cast<std::uint32_t>(index.experts_per_layer.size()));
  writer.put(static_cast<std::uint32_t>(index.infos.size()));
  writer.put_all(index.experts_per_layer);
  writer.put_all(index.record_xxh3);
  for (std::size_t i = 0; i < index.infos.size(); ++i) {
    TensorInfo const& info = index.infos[i];
    writer.put(static_cast<std::uint32_t>(info.name.size()));
    writer.put(static_cast<std::uint32_t>(info.dtype_name.size()));
    writer.put(static_cast<std::uint32_t>(info.shape.size()));
    writer.put_bytes(info.name.data(), info.name.size());
    writer.put_bytes(info.dtype_name.data(), info.dtype_name.size());
    writer.put_all(info.shape);
    writer.put(index.tensors[i].offset);
    writer.put(info.size_bytes);
    writer.put_all(index.tensors[i].chunk_xxh3);
  }
  return std::move(writer).take();
}

}  // namespace sida::inline v0::io_detail
