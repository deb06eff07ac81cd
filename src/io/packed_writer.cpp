#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "io/atomic_file.hpp"
#include "io/checksum.hpp"
#include "io/json.hpp"
#include "io/packed_format.hpp"
#include "io/tensor_size.hpp"
#include "sida/core/memory.hpp"
#include "sida/detail/try.hpp"
#include "sida/io/packed.hpp"

namespace sida::inline v0 {
namespace {

using io_detail::in_quotes;
using io_detail::kPackedChunkBytes;

Error refuse(std::string const& path, std::string const& why) { return {Errc::invalid_argument, path + ": " + why}; }

/// Plans the container, then writes its parts in file order; header and index last, when the checksums are known.
class PackedWriter {
 public:
  PackedWriter(std::string const& path, PackInput const& input) : path_(path), input_(input) {}

  Status write() {
    SIDA_TRY(check_experts());
    SIDA_TRY(plan_dense());
    SIDA_TRY(plan_sections());
    SIDA_TRY_ASSIGN(io_detail::AtomicFile file, io_detail::AtomicFile::create(path_));
    if (input_.started) input_.started(file.temporary());
    SIDA_TRY(file.reserve(header_.file_bytes));
    SIDA_TRY(write_text(file, header_.config, input_.config_json));
    SIDA_TRY(write_text(file, header_.tokenizer, input_.tokenizer));
    SIDA_TRY(write_dense(file));
    SIDA_TRY(write_records(file));
    auto const index = io_detail::encode_packed_index(index_);
    header_.index.xxh3 = io_detail::xxh3_64(index);
    SIDA_TRY(file.write_at(header_.index.offset, index));
    SIDA_TRY(file.write_at(0, io_detail::encode_packed_header(header_)));
    SIDA_TRY(file.finish());
    if (is_cancelled()) return cancelled();
    if (input_.written) SIDA_TRY(input_.written(header_.file_bytes));
    return file.publish();
  }

 private:
  Status check_experts();
  Status plan_dense();
  Status plan_sections();
  Status write_text(io_detail::AtomicFile& file, io_detail::PackedSection& section, std::string const& text);
  Status write_dense(io_detail::AtomicFile& file);
  Status write_records(io_detail::AtomicFile& file);

  bool is_cancelled() const { return input_.cancelled && input_.cancelled(); }
  Error cancelled() const { return {Errc::cancelled, path_ + ": packing was cancelled"}; }
  void advance(std::uint64_t bytes) {
    done_bytes_ += bytes;
    if (input_.progress) input_.progress(done_bytes_, total_bytes_);
  }

  std::string const& path_;
  PackInput const& input_;
  io_detail::PackedHeader header_;
  io_detail::PackedIndex index_;
  std::uint64_t done_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

Status PackedWriter::check_experts() {
  if (input_.experts == nullptr) return refuse(path_, "no source of experts");
  SIDA_TRY_ASSIGN(header_.layout, ExpertLayout::of(input_.layout.shape));
  auto const counts = input_.experts->experts_per_layer();
  index_.experts_per_layer.assign(counts.begin(), counts.end());
  std::size_t records = 0;
  for (std::size_t layer = 0; layer < counts.size(); ++layer) {
    for (std::uint32_t expert = 0; expert < counts[layer]; ++expert) {
      ExpertId const id{static_cast<std::uint32_t>(layer), expert};
      std::size_t const bytes = input_.experts->record_bytes(id);
      if (bytes != header_.layout.size_bytes) {
        return refuse(path_, to_string(id) + " has a record of " + std::to_string(bytes) + " bytes, its layout " +
                                 std::to_string(header_.layout.size_bytes));
      }
    }
    records += counts[layer];
  }
  index_.record_xxh3.assign(records, 0);
  return {};
}

Status PackedWriter::plan_dense() {
  if (input_.dense_names.empty()) return {};
  if (input_.dense == nullptr) return refuse(path_, "no source of dense tensors");
  std::vector<std::string> names = input_.dense_names;
  std::sort(names.begin(), names.end());
  for (std::size_t i = 0; i < names.size(); ++i) {
    std::string const what = "tensor " + in_quotes(names[i]);
    if (i > 0 && names[i] == names[i - 1]) return refuse(path_, what + " is named twice");
    TensorInfo const* const info = input_.dense->find(names[i]);
    if (info == nullptr) return Error(Errc::not_found, input_.dense->path() + ": no " + what);
    if (info->name.size() > io_detail::kPackedMaxNameBytes || info->shape.size() > io_detail::kPackedMaxRank) {
      return refuse(path_, what + " has too long a name or too many dimensions");
    }
    SIDA_TRY_ASSIGN(std::uint64_t const bytes, io_detail::tensor_bytes(info->dtype_name, info->shape, what));
    if (bytes != info->size_bytes) return refuse(path_, what + " has another size than its shape");
    index_.infos.push_back(*info);
    io_detail::PackedTensor tensor;
    tensor.chunk_xxh3.assign(static_cast<std::size_t>(io_detail::chunk_count(bytes)), 0);
    index_.tensors.push_back(std::move(tensor));
  }
  return {};
}

Status PackedWriter::plan_sections() {
  header_.index.offset = io_detail::kPackedHeaderBytes;
  header_.index.size_bytes = io_detail::encode_packed_index(index_).size();
  header_.config = {header_.index.end(), input_.config_json.size(), 0};
  header_.tokenizer = {header_.config.end(), input_.tokenizer.size(), 0};
  if (header_.index.size_bytes > io_detail::kPackedMaxIndexBytes ||
      header_.config.size_bytes > io_detail::kPackedMaxConfigBytes ||
      header_.tokenizer.size_bytes > io_detail::kPackedMaxTokenizerBytes) {
    return refuse(path_, "index, config or tokenizer is larger than the format allows");
  }
  // Sums stay far below 2^63: checked, since sizes come from a caller's source.
  std::uint64_t end = header_.tokenizer.end();
  std::uint64_t dense_bytes = 0;
  constexpr std::uint64_t kMaxFile = std::numeric_limits<std::int64_t>::max() / 4;
  for (std::size_t i = 0; i < index_.infos.size(); ++i) {
    std::uint64_t const bytes = index_.infos[i].size_bytes;
    index_.tensors[i].offset = slot_bytes_for(end);
    if (bytes > kMaxFile - index_.tensors[i].offset) return refuse(path_, "dense tensors are too large");
    end = index_.tensors[i].offset + bytes;
    dense_bytes += bytes;
  }
  header_.experts_offset = slot_bytes_for(end);
  std::uint64_t const records = index_.record_xxh3.size();
  if (records > (kMaxFile - header_.experts_offset) / header_.stride()) return refuse(path_, "experts are too large");
  header_.file_bytes = header_.experts_offset + records * header_.stride();
  total_bytes_ = header_.config.size_bytes + header_.tokenizer.size_bytes + dense_bytes + records * header_.stride();
  return {};
}

Status PackedWriter::write_text(io_detail::AtomicFile& file, io_detail::PackedSection& section,
                                std::string const& text) {
  auto const bytes = std::as_bytes(std::span(text));
  section.xxh3 = io_detail::xxh3_64(bytes);
  SIDA_TRY(file.write_at(section.offset, bytes));
  advance(bytes.size());
  return {};
}

Status PackedWriter::write_dense(io_detail::AtomicFile& file) {
  std::vector<std::byte> buffer;
  for (std::size_t i = 0; i < index_.infos.size(); ++i) {
    TensorInfo const& info = index_.infos[i];
    io_detail::PackedTensor& tensor = index_.tensors[i];
    for (std::size_t chunk = 0; chunk < tensor.chunk_xxh3.size(); ++chunk) {
      if (is_cancelled()) return cancelled();
      std::uint64_t const begin = chunk * kPackedChunkBytes;
      buffer.resize(static_cast<std::size_t>(std::min(kPackedChunkBytes, info.size_bytes - begin)));
      SIDA_TRY(input_.dense->read(info.name, begin, buffer));
      tensor.chunk_xxh3[chunk] = io_detail::xxh3_64(buffer);
      SIDA_TRY(file.write_at(tensor.offset + begin, buffer));
      advance(buffer.size());
    }
  }
  return {};
}

Status PackedWriter::write_records(io_detail::AtomicFile& file) {
  HostMemory memory;
  std::size_t const stride = static_cast<std::size_t>(header_.stride());
  std::size_t const record_bytes = header_.layout.size_bytes;
  SIDA_TRY_ASSIGN(Buffer buffer, Buffer::allocate(memory, stride, kRecordAlignment, "one expert"));
  std::span<std::byte> const slot = buffer.bytes();
  std::size_t record = 0;
  for (std::size_t layer = 0; layer < index_.experts_per_layer.size(); ++layer) {
    for (std::uint32_t expert = 0; expert < index_.experts_per_layer[layer]; ++expert, ++record) {
      if (is_cancelled()) return cancelled();
      SIDA_TRY(input_.experts->read({static_cast<std::uint32_t>(layer), expert}, slot));
      std::memset(slot.data() + record_bytes, 0, stride - record_bytes);
      index_.record_xxh3[record] = io_detail::xxh3_64(slot.first(record_bytes));
      SIDA_TRY(file.write_at(header_.experts_offset + record * stride, slot));
      advance(stride);
    }
  }
  return {};
}

}  // namespace

Status write_packed(std::string const& path, PackInput const& input) { return PackedWriter(path, input).write(); }

}  // namespace sida::inline v0
