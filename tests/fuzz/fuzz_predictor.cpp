#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sida/core/memory.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/io/safetensors.hpp"
#include "sida/predict/lstm_hash.hpp"

namespace {

/// A safetensors file in memory.
class FileInMemory final : public sida::TensorSource {
 public:
  FileInMemory(std::span<std::byte const> file, sida::SafetensorsHeader header) : file_(file) {
    for (auto& entry : header.entries) {
      infos_.push_back(std::move(entry.info));
      offsets_.push_back(entry.file_offset);
    }
  }
  std::string const& path() const noexcept override { return path_; }
  std::span<sida::TensorInfo const> tensors() const noexcept override { return infos_; }
  sida::ReadStats read_stats() const noexcept override { return {}; }
  sida::Status read(std::string_view name, std::uint64_t offset, std::span<std::byte> dst) const override {
    auto const* const info = find(name);
    if (info == nullptr || offset > info->size_bytes || dst.size() > info->size_bytes - offset) std::abort();
    std::uint64_t const begin = offsets_[static_cast<std::size_t>(info - infos_.data())] + offset;
    std::ranges::copy(file_.subspan(static_cast<std::size_t>(begin), dst.size()), dst.begin());
    return {};
  }

 private:
  std::string path_ = "fuzz";
  std::span<std::byte const> file_;
  std::vector<sida::TensorInfo> infos_;
  std::vector<std::uint64_t> offsets_;
};

}  // namespace

/// A hash function is made of the tensors that it names and of no others, and what is loaded can be asked.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const file = std::as_bytes(std::span(data, size));
  auto header = sida::parse_safetensors_header(file, size, "fuzz");
  if (!header) return 0;
  FileInMemory const source(file, *std::move(header));
  sida::InlinePool pool;
  sida::HostMemory memory;
  auto const hash = sida::LstmHash::load(source, {}, pool, memory);
  if (!hash) {
    if (hash.message().find("fuzz") == std::string::npos) std::abort();  // a message names the file
    return 0;
  }
  if (hash->layers() < 1 || hash->experts() < 1 || hash->d_model() < 1 || hash->hidden() < 1) std::abort();
  sida::TokenBatch batch;
  batch.append(std::vector<std::int32_t>{1, 2});
  std::vector<float> const embeddings(static_cast<std::size_t>(2 * hash->d_model()), 0.5F);
  auto const plan = hash->predict({batch, {embeddings.data(), 2, hash->d_model()}});
  if (plan && plan->layers.size() != hash->layers()) std::abort();  // weights may be NaN: then there is none
  return 0;
}
