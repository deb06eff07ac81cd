#include "cli/synth_writer.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "sida/detail/try.hpp"

namespace sida::cli {
namespace {

constexpr std::uint64_t kBlockBytes = std::uint64_t{8} << 20;
constexpr std::uint64_t kRowsPerTask = 16;

std::uint64_t total_bytes(std::span<SynthTensor const> tensors, Dtype dtype) {
  std::uint64_t total = 0;
  for (auto const& tensor : tensors) total += tensor.size_bytes(dtype);
  return total;
}

/// Length and JSON, padded to a multiple of 8 bytes as the format's own writer does. Names need no escapes.
std::string make_header(std::span<SynthTensor const> tensors, Dtype dtype) {
  std::string json(kSynthHeaderStart);
  std::uint64_t offset = 0;
  for (auto const& tensor : tensors) {
    json += ",\"" + tensor.name + "\":{\"dtype\":\"" + (dtype == Dtype::f32 ? "F32" : "BF16") + "\",\"shape\":[";
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) json += (i > 0 ? "," : "") + std::to_string(tensor.shape[i]);
    std::uint64_t const end = offset + tensor.size_bytes(dtype);
    json += "],\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  json += '}';
  json.append((8 - json.size() % 8) % 8, ' ');
  std::string header;
  for (unsigned shift = 0; shift < 64; shift += 8) header += static_cast<char>(json.size() >> shift & 0xFF);
  return header + json;
}

/// Rows [first, first + count) into `block`.
void fill_block(SynthTensor const& tensor, std::uint64_t first, std::uint64_t count, Dtype dtype, ThreadPool& pool,
                std::span<std::byte> block) {
  std::uint64_t const row_bytes = tensor.columns() * size_bytes(dtype);
  auto const fill = [&](std::size_t task) {
    std::uint64_t const end = std::min(count, (task + 1) * kRowsPerTask);
    for (std::uint64_t row = task * kRowsPerTask; row < end; ++row) {
      tensor.write_row(first + row, dtype, block.subspan(row * row_bytes, row_bytes));
    }
  };
  pool.run((count + kRowsPerTask - 1) / kRowsPerTask, fill);
}

}  // namespace

Status write_synth_tensors(std::span<SynthTensor const> tensors, Dtype dtype, ThreadPool& pool,
                           SynthCallbacks const& callbacks, OutputFile& file) {
  SIDA_TRY(file.write(make_header(tensors, dtype)));
  std::uint64_t const total = total_bytes(tensors, dtype);
  std::uint64_t done = 0;
  std::vector<std::byte> block;
  for (auto const& tensor : tensors) {
    std::uint64_t const row_bytes = tensor.columns() * size_bytes(dtype);
    std::uint64_t const block_rows = std::max<std::uint64_t>(1, kBlockBytes / row_bytes);
    for (std::uint64_t row = 0; row < tensor.rows(); row += block_rows) {
      if (callbacks.cancelled && callbacks.cancelled()) {
        return {Errc::cancelled, file.path() + ": writing was cancelled"};
      }
      std::uint64_t const count = std::min(block_rows, tensor.rows() - row);
      block.resize(std::max<std::size_t>(block.size(), count * row_bytes));
      std::span<std::byte> const bytes(block.data(), count * row_bytes);
      fill_block(tensor, row, count, dtype, pool, bytes);
      SIDA_TRY(file.write(bytes));
      done += bytes.size();
      if (callbacks.progress) callbacks.progress(done, total);
    }
  }
  return {};
}

}  // namespace sida::cli
