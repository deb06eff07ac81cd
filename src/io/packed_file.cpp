#include <algorithm>
#include <cstring>
#include <utility>

#include "io/checksum.hpp"
#include "io/json.hpp"
#include "io/open_file.hpp"
#include "io/packed_format.hpp"
#include "io/staging_pool.hpp"
#include "sida/detail/try.hpp"
#include "sida/io/packed.hpp"

namespace sida::inline v0 {
namespace {

using io_detail::in_quotes;
using io_detail::kPackedChunkBytes;
using io_detail::PackedHeader;
using io_detail::PackedIndex;
using io_detail::PackedSection;

Error bad_checksum(std::string const& path, std::string const& what, std::uint64_t offset) {
  return {Errc::corrupt, path + ": " + what + " at offset " + std::to_string(offset) + ": checksum does not match"};
}

class PackedDense final : public TensorSource {
 public:
  PackedDense(std::unique_ptr<File> file, std::vector<TensorInfo> infos, std::vector<io_detail::PackedTensor> tensors)
      : file_(std::move(file)), infos_(std::move(infos)), tensors_(std::move(tensors)) {}

  std::string const& path() const noexcept override { return file_->path(); }
  std::span<TensorInfo const> tensors() const noexcept override { return infos_; }
  std::string describe(TensorInfo const& info) const override {
    return TensorSource::describe(info) + " at byte " + std::to_string(place_of(info).offset);
  }
  Status read(std::string_view name, std::uint64_t offset, std::span<std::byte> dst) const override;
  ReadStats read_stats() const noexcept override { return file_->read_stats(); }

 private:
  io_detail::PackedTensor const& place_of(TensorInfo const& info) const {
    return tensors_[static_cast<std::size_t>(&info - infos_.data())];
  }

  std::unique_ptr<File> file_;
  std::vector<TensorInfo> infos_;                 // sorted by name
  std::vector<io_detail::PackedTensor> tensors_;  // of the info with the same index
};

Status PackedDense::read(std::string_view name, std::uint64_t offset, std::span<std::byte> dst) const {
  TensorInfo const* const info = find(name);
  if (info == nullptr) return Error(Errc::not_found, path() + ": no tensor " + in_quotes(name));
  if (offset > info->size_bytes || dst.size() > info->size_bytes - offset) {
    return Error(Errc::invalid_argument, path() + ": tensor " + in_quotes(name) + ": bytes [" + std::to_string(offset) +
                                             ", +" + std::to_string(dst.size()) + ") of " +
                                             std::to_string(info->size_bytes));
  }
  auto const& tensor = place_of(*info);
  std::vector<std::byte> whole;  // a chunk of which only a part is wanted
  std::uint64_t const end = offset + dst.size();
  for (std::uint64_t at = offset; at < end;) {
    std::uint64_t const index = at / kPackedChunkBytes;
    std::uint64_t const begin = index * kPackedChunkBytes;
    std::uint64_t const stop = std::min(begin + kPackedChunkBytes, info->size_bytes);
    bool const is_whole = at == begin && stop <= end;
    std::span<std::byte> chunk;
    if (is_whole) {
      chunk = dst.subspan(static_cast<std::size_t>(at - offset), static_cast<std::size_t>(stop - begin));
    } else {
      whole.resize(static_cast<std::size_t>(stop - begin));
      chunk = whole;
    }
    Status status = file_->read_at(tensor.offset + begin, chunk);
    if (!status) return std::move(status).error().with_context("tensor " + in_quotes(name));
    if (io_detail::xxh3_64(chunk) != tensor.chunk_xxh3[static_cast<std::size_t>(index)]) {
      return bad_checksum(path(), "tensor " + in_quotes(name), tensor.offset + begin);
    }
    std::uint64_t const until = std::min(stop, end);
    if (!is_whole) std::memcpy(dst.data() + (at - offset), chunk.data() + (at - begin), until - at);
    at = until;
  }
  return {};
}

class PackedExperts final : public ExpertSource {
 public:
  PackedExperts(std::unique_ptr<File> file, PackedHeader const& header, PackedIndex index)
      : file_(std::move(file)),
        offset_(header.experts_offset),
        stride_(header.stride()),
        record_bytes_(header.layout.size_bytes),
        counts_(std::move(index.experts_per_layer)),
        record_xxh3_(std::move(index.record_xxh3)) {
    std::uint64_t first = 0;
    for (std::uint32_t const count : counts_) {
      first_.push_back(first);
      first += count;
    }
  }

  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return counts_; }
  std::size_t record_bytes(ExpertId) const noexcept override { return record_bytes_; }
  Status read(ExpertId id, std::span<std::byte> dst) const override;
  ReadStats read_stats() const noexcept override { return file_->read_stats(); }

 private:
  std::unique_ptr<File> file_;
  std::uint64_t offset_;
  std::uint64_t stride_;
  std::size_t record_bytes_;
  std::vector<std::uint32_t> counts_;
  std::vector<std::uint64_t> first_;  // first record of each layer
  std::vector<std::uint64_t> record_xxh3_;
};

Status PackedExperts::read(ExpertId id, std::span<std::byte> dst) const {
  if (id.layer >= counts_.size() || id.expert >= counts_[id.layer]) {
    return Error(Errc::invalid_argument, file_->path() + ": no " + to_string(id));
  }
  if (dst.size() < stride_) {
    return Error(Errc::invalid_argument, file_->path() + ": " + to_string(id) + ": room for " +
                                             std::to_string(dst.size()) + " of " + std::to_string(stride_) + " bytes");
  }
  std::uint64_t const record = first_[id.layer] + id.expert;
  std::uint64_t const offset = offset_ + record * stride_;
  Status status = file_->read_at(offset, dst.first(static_cast<std::size_t>(stride_)));
  if (!status) return std::move(status).error().with_context(to_string(id));
  if (io_detail::xxh3_64(dst.first(record_bytes_)) != record_xxh3_[static_cast<std::size_t>(record)]) {
    return bad_checksum(file_->path(), to_string(id), offset);
  }
  return {};
}

class PackedFileImpl final : public PackedFile {
 public:
  PackedFileImpl(std::string config, std::string tokenizer, PackedHeader const& header, PackedIndex index,
                 std::unique_ptr<File> dense_file, std::unique_ptr<File> experts_file)
      : config_(std::move(config)),
        tokenizer_(std::move(tokenizer)),
        layout_(header.layout),
        dense_(std::move(dense_file), std::move(index.infos), std::move(index.tensors)),
        experts_(std::move(experts_file), header, std::move(index)) {}

  std::string const& config_json() const noexcept override { return config_; }
  std::string const& tokenizer() const noexcept override { return tokenizer_; }
  ExpertLayout const& layout() const noexcept override { return layout_; }
  TensorSource const& dense() const noexcept override { return dense_; }
  ExpertSource const& experts() const noexcept override { return experts_; }

 private:
  std::string config_;
  std::string tokenizer_;
  ExpertLayout layout_;
  PackedDense dense_;
  PackedExperts experts_;
};

/// Reads a part that is held whole and verifies it.
Result<std::string> read_section(File const& file, PackedSection const& section, std::string const& what) {
  std::string bytes(static_cast<std::size_t>(section.size_bytes), '\0');
  auto const writable = std::as_writable_bytes(std::span(bytes));
  Status status = file.read_at(section.offset, writable);
  if (!status) return std::move(status).error().with_context(what);
  if (io_detail::xxh3_64(writable) != section.xxh3) return bad_checksum(file.path(), what, section.offset);
  return bytes;
}

}  // namespace

Result<std::shared_ptr<PackedFile const>> PackedFile::open(std::string const& path, ReadPath read_path) {
  // Two files, so that the bytes read for experts are counted apart. Should `path` be replaced in between, the
  // records' checksums tell.
  auto const staging = std::make_shared<io_detail::StagingPool>();
  SIDA_TRY_ASSIGN(auto dense_file, io_detail::open_file(path, read_path, staging));
  SIDA_TRY_ASSIGN(auto experts_file, io_detail::open_file(path, read_path, staging));

  std::uint64_t const file_bytes = dense_file->size_bytes();
  std::vector<std::byte> page(static_cast<std::size_t>(std::min<std::uint64_t>(file_bytes, 4096)));
  SIDA_TRY(dense_file->read_at(0, page));
  SIDA_TRY_ASSIGN(PackedHeader const header, io_detail::parse_packed_header(page, file_bytes, path));
  SIDA_TRY_ASSIGN(std::string const index_bytes, read_section(*dense_file, header.index, "index"));
  SIDA_TRY_ASSIGN(PackedIndex index,
                  io_detail::parse_packed_index(std::as_bytes(std::span(index_bytes)), header, path));
  SIDA_TRY_ASSIGN(std::string config, read_section(*dense_file, header.config, "config"));
  SIDA_TRY_ASSIGN(std::string tokenizer, read_section(*dense_file, header.tokenizer, "tokenizer"));
  return std::shared_ptr<PackedFile const>(
      std::make_shared<PackedFileImpl>(std::move(config), std::move(tokenizer), header, std::move(index),
                                       std::move(dense_file), std::move(experts_file)));
}

}  // namespace sida::inline v0
