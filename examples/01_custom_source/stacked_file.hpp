#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <sida/core/expert_layout.hpp>
#include <sida/io/expert_source.hpp>

/// Somebody's own file format: little-endian, the experts of a layer stacked matrix by matrix.
///
///   u32 magic "STK1", u32 layers, u32 experts, u32 d_model, u32 d_ff
///   per layer: gate [experts, d_ff, d_model], up [experts, d_ff, d_model], down [experts, d_model, d_ff]; bf16
struct StackedHeader {
  std::uint32_t magic = 0x314B5453;
  std::uint32_t layers = 0;
  std::uint32_t experts = 0;
  std::uint32_t d_model = 0;
  std::uint32_t d_ff = 0;
};

/// Writes a file of random weights. @return io.
sida::Status write_stacked_file(std::string const& path, StackedHeader const& header, std::uint32_t seed);

/// Serves experts from such a file. An expert's three matrices stand far apart in it; a record brings them together as
/// `ExpertLayout` wants them.
class StackedSource final : public sida::ExpertSource {
 public:
  /// @return not_found, io; corrupt when the file is not of this format or not of the size that its header promises.
  static sida::Result<std::shared_ptr<StackedSource const>> open(std::string path);
  ~StackedSource() override;
  StackedSource(StackedSource const&) = delete;
  StackedSource& operator=(StackedSource const&) = delete;

  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return experts_; }
  std::size_t record_bytes(sida::ExpertId) const noexcept override { return layout_.size_bytes; }
  sida::Status read(sida::ExpertId id, std::span<std::byte> dst) const override;

  StackedHeader const& header() const noexcept { return header_; }
  sida::ExpertLayout const& layout() const noexcept { return layout_; }

 private:
  StackedSource(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  sida::Status read_header();
  sida::Status read_at(std::uint64_t offset, std::byte* dst, std::size_t bytes) const;

  std::string path_;
  int descriptor_;
  StackedHeader header_;
  sida::ExpertLayout layout_;
  std::vector<std::uint32_t> experts_;
};
