#include "sida/io/safetensors.hpp"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <utility>

#include "io/json.hpp"
#include "io/open_file.hpp"
#include "io/safetensors_index.hpp"
#include "io/safetensors_limits.hpp"
#include "io/staging_pool.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0 {
namespace {

using io_detail::in_quotes;
using io_detail::SafetensorsIndex;
using io_detail::StagingPool;

class SafetensorsSource final : public TensorSource {
 public:
  explicit SafetensorsSource(std::string path) : path_(std::move(path)) {}

  /// Tensors are added in order of name.
  void add_tensor(TensorInfo info, std::size_t file, std::uint64_t offset) {
    infos_.push_back(std::move(info));
    places_.push_back({offset, file});
  }
  std::size_t add_file(std::unique_ptr<File> file) {
    files_.push_back(std::move(file));
    return files_.size() - 1;
  }

  std::string const& path() const noexcept override { return path_; }
  std::span<TensorInfo const> tensors() const noexcept override { return infos_; }
  std::string describe(TensorInfo const& info) const override {
    Place const& place = place_of(info);
    return files_[place.file]->path() + ": tensor " + in_quotes(info.name) + " at byte " + std::to_string(place.offset);
  }
  Status read(std::string_view name, std::uint64_t offset, std::span<std::byte> dst) const override;
  ReadStats read_stats() const noexcept override {
    ReadStats sum;
    for (auto const& file : files_) sum = io_detail::add_stats(sum, file->read_stats());
    return sum;
  }

 private:
  struct Place {
    std::uint64_t offset = 0;
    std::size_t file = 0;
  };
  Place const& place_of(TensorInfo const& info) const {
    return places_[static_cast<std::size_t>(&info - infos_.data())];
  }

  std::string path_;
  std::vector<TensorInfo> infos_;  // sorted by name
  std::vector<Place> places_;      // of the tensor with the same index
  std::vector<std::unique_ptr<File>> files_;
};

Status SafetensorsSource::read(std::string_view name, std::uint64_t offset, std::span<std::byte> dst) const {
  TensorInfo const* const info = find(name);
  if (info == nullptr) return Error(Errc::not_found, path_ + ": no tensor " + in_quotes(name));
  if (offset > info->size_bytes || dst.size() > info->size_bytes - offset) {
    return Error(Errc::invalid_argument, path_ + ": tensor " + in_quotes(name) + ": bytes [" + std::to_string(offset) +
                                             ", +" + std::to_string(dst.size()) + ") of " +
                                             std::to_string(info->size_bytes));
  }
  Place const& place = place_of(*info);
  Status status = files_[place.file]->read_at(place.offset + offset, dst);
  if (!status) return std::move(status).error().with_context("tensor " + in_quotes(name));
  return status;
}

struct Shard {
  std::unique_ptr<File> file;
  SafetensorsHeader header;
};

Result<Shard> open_shard(std::string const& path, ReadPath read_path, std::shared_ptr<StagingPool> const& staging) {
  Shard shard;
  SIDA_TRY_ASSIGN(shard.file, io_detail::open_file(path, read_path, staging));
  std::uint64_t const file_bytes = shard.file->size_bytes();
  std::vector<std::byte> prefix(static_cast<std::size_t>(std::min<std::uint64_t>(file_bytes, kSafetensorsLengthBytes)));
  SIDA_TRY(shard.file->read_at(0, prefix));
  SIDA_TRY_ASSIGN(std::uint64_t const json_bytes, io_detail::safetensors_json_bytes(prefix, file_bytes, path));
  prefix.resize(kSafetensorsLengthBytes + static_cast<std::size_t>(json_bytes));
  SIDA_TRY(shard.file->read_at(0, prefix));
  SIDA_TRY_ASSIGN(shard.header, parse_safetensors_header(prefix, file_bytes, path));
  return shard;
}

Result<std::unique_ptr<TensorSource>> open_single(std::string const& path, ReadPath read_path) {
  SIDA_TRY_ASSIGN(Shard shard, open_shard(path, read_path, std::make_shared<StagingPool>()));
  auto source = std::make_unique<SafetensorsSource>(path);
  std::size_t const file = source->add_file(std::move(shard.file));
  for (SafetensorsEntry& entry : shard.header.entries) {
    source->add_tensor(std::move(entry.info), file, entry.file_offset);
  }
  return std::unique_ptr<TensorSource>(std::move(source));
}

Result<SafetensorsIndex> read_index(std::string const& path) {
  SIDA_TRY_ASSIGN(std::unique_ptr<File> const file, File::open(path, ReadPath::pread));
  if (file->size_bytes() > kSafetensorsMaxJsonBytes) {
    return Error(Errc::corrupt, path + ": index of " + std::to_string(file->size_bytes()) + " bytes");
  }
  std::string text(static_cast<std::size_t>(file->size_bytes()), '\0');
  SIDA_TRY(file->read_at(0, std::as_writable_bytes(std::span(text))));
  return io_detail::parse_safetensors_index(text, path);
}

Result<std::unique_ptr<TensorSource>> open_sharded(std::filesystem::path const& folder, std::string const& index_path,
                                                   ReadPath read_path) {
  SIDA_TRY_ASSIGN(SafetensorsIndex const weights, read_index(index_path));
  struct OpenShard {
    std::vector<SafetensorsEntry> entries;
    std::size_t file = 0;
  };
  std::map<std::string, OpenShard> shards;
  auto source = std::make_unique<SafetensorsSource>(folder.string());
  auto const staging = std::make_shared<StagingPool>();
  for (auto const& [tensor, shard_name] : weights) {
    if (shards.contains(shard_name)) continue;
    auto shard = open_shard((folder / shard_name).string(), read_path, staging);
    if (!shard) return std::move(shard).error().with_context(index_path + ": tensor " + in_quotes(tensor));
    std::size_t const file = source->add_file(std::move(shard->file));
    shards.emplace(shard_name, OpenShard{std::move(shard->header.entries), file});
  }
  // The index decides: what a shard holds beside it is not a tensor of the checkpoint.
  for (auto const& [tensor, shard_name] : weights) {
    OpenShard& shard = shards.at(shard_name);
    auto const entry =
        std::lower_bound(shard.entries.begin(), shard.entries.end(), tensor,
                         [](SafetensorsEntry const& e, std::string const& name) { return e.info.name < name; });
    if (entry == shard.entries.end() || entry->info.name != tensor) {
      return Error(Errc::corrupt, index_path + ": tensor " + in_quotes(tensor) + " is not in its shard " +
                                      in_quotes(shard_name) + " (header byte 8)");
    }
    source->add_tensor(entry->info, shard.file, entry->file_offset);
  }
  return std::unique_ptr<TensorSource>(std::move(source));
}

}  // namespace

Result<std::unique_ptr<TensorSource>> open_safetensors(std::string const& path, ReadPath read_path) {
  namespace fs = std::filesystem;
  std::error_code ignored;  // a path that can't be examined is treated as a file, whose open says why
  if (!fs::is_directory(path, ignored)) return open_single(path, read_path);
  fs::path const folder(path);
  fs::path const single = folder / "model.safetensors";
  if (fs::exists(single, ignored)) return open_single(single.string(), read_path);
  fs::path const index = folder / "model.safetensors.index.json";
  if (fs::exists(index, ignored)) return open_sharded(folder, index.string(), read_path);
  return Error(Errc::not_found, path + ": neither model.safetensors nor model.safetensors.index.json");
}

}  // namespace sida::inline v0
