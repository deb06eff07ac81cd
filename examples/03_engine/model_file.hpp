#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace engine {

/// The engine's way of failing. @throws std::runtime_error.
[[noreturn]] void fail(std::string const& why);

/// A decoder of Mixtral's form.
struct Config {
  std::vector<std::uint32_t> experts_per_layer = {8, 8, 8, 8};  ///< all equal
  std::uint32_t top_k = 2;
  std::int64_t d_model = 256;
  std::int64_t d_ff = 512;
  std::int64_t heads = 8;
  std::int64_t kv_heads = 2;
  std::int64_t head_dim = 32;
  std::int64_t vocabulary = 256;
  std::int64_t max_tokens = 128;
  float rope_theta = 1e6F;

  std::uint32_t layers() const noexcept { return static_cast<std::uint32_t>(experts_per_layer.size()); }
  std::uint32_t experts() const noexcept { return experts_per_layer.front(); }
};

/// Weights as a raw blob: the dense ones in fp32 (see `DenseWeights`), then, from a multiple of 4 KiB on, each layer's
/// experts in bf16, one after the other: gate [d_ff, d_model], up [d_ff, d_model], down [d_model, d_ff].
class ModelFile {
 public:
  /// Writes random weights. @throws std::runtime_error.
  static void write_random(std::string const& path, Config const& config, std::uint64_t seed);

  /// @throws std::runtime_error for a file that can't be read or is not of the size that `config` asks for.
  ModelFile(std::string path, Config const& config);
  ~ModelFile();
  ModelFile(ModelFile const&) = delete;
  ModelFile& operator=(ModelFile const&) = delete;

  Config const& config() const noexcept { return config_; }
  std::string const& path() const noexcept { return path_; }
  std::size_t dense_floats() const noexcept;
  std::size_t expert_bytes() const noexcept;
  /// dst: [dense_floats()]. @throws std::runtime_error.
  void read_dense(float* dst) const;
  /// Reads an expert to dst [expert_bytes()]. Thread-safe. @return whether all of it was there.
  bool read_expert(std::uint32_t layer, std::uint32_t expert, void* dst) const noexcept;

 private:
  bool read_at(std::uint64_t offset, void* dst, std::size_t bytes) const noexcept;

  std::string path_;
  Config config_;
  int descriptor_;
};

}  // namespace engine
