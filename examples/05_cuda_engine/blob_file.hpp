// The engine's own checkpoint: for each expert its down, up and gate projections, bf16, one after the other, without
// header or padding. Knows nothing of sida.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace engine {

struct Config {
  std::uint32_t experts = 16;
  std::int64_t top_k = 2;
  std::int64_t d_model = 256;
  std::int64_t d_ff = 512;
  std::size_t matrix_bytes() const { return static_cast<std::size_t>(d_model * d_ff) * 2; }
};

enum class Matrix : std::size_t { down, up, gate };

class BlobFile {
 public:
  /// Writes random weights to a temporary file, which goes with this object.
  explicit BlobFile(Config const& config);
  ~BlobFile();
  BlobFile(BlobFile const&) = delete;
  BlobFile& operator=(BlobFile const&) = delete;
  /// May be called from several threads. False for a short read.
  bool read(std::uint32_t expert, Matrix matrix, std::byte* to) const;

 private:
  Config config_;
  std::string path_;
  int descriptor_ = -1;
};

}  // namespace engine
