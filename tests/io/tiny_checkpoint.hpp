#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sida/core/expert_layout.hpp"
#include "sida/io/packed.hpp"
#include "sida/io/safetensors.hpp"
#include "tests/io/safetensors_builder.hpp"

namespace sida::testing {

/// Bytes that differ everywhere, the same for the same seed.
inline std::string noise(std::size_t bytes, std::uint64_t seed) {
  std::string text(bytes, '\0');
  std::uint64_t state = seed * 2 + 1;
  for (char& c : text) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    c = static_cast<char>(state >> 56);
  }
  return text;
}

/// A checkpoint of a few small experts and dense tensors, as a safetensors file and as a packed container. The
/// matrices are no multiple of 64 bytes, so that records have bytes between them.
struct TinyCheckpoint {
  explicit TinyCheckpoint(FfnKind kind = FfnKind::swiglu, std::int64_t d_model = 37, std::int64_t d_ff = 59,
                          std::vector<std::uint32_t> experts_per_layer = {3, 1, 5})
      : layout(*ExpertLayout::of({kind, Dtype::bf16, d_model, d_ff})) {
    SafetensorsBuilder builder;
    std::uint64_t seed = 0;
    auto const add = [&](std::string const& name, std::int64_t rows, std::int64_t cols) {
      builder.add(name, "BF16", {rows, cols}, noise(layout.matrix_bytes(), ++seed));
      return name;
    };
    for (std::uint32_t layer = 0; layer < experts_per_layer.size(); ++layer) {
      auto& row = names.emplace_back();
      for (std::uint32_t expert = 0; expert < experts_per_layer[layer]; ++expert) {
        std::string const prefix = "layers." + std::to_string(layer) + ".experts." + std::to_string(expert) + ".";
        ExpertTensorNames& n = row.emplace_back();
        n.out = add(prefix + "down", d_model, d_ff);
        if (kind == FfnKind::swiglu) n.gate = add(prefix + "gate", d_ff, d_model);
        n.in = add(prefix + "up", d_ff, d_model);
      }
    }
    builder.add("norm", "F32", {5}, noise(20, 100));
    builder.add("embed", "BF16", {1000, 1300}, noise(2'600'000, 101));  // three chunks
    builder.add("nothing", "F32", {0}, "");
    builder.write(safetensors_path(), 3);  // data at an odd offset
  }

  std::string safetensors_path() const { return folder / "model.safetensors"; }
  std::string packed_path() const { return folder / "model.sida"; }

  std::shared_ptr<TensorSource const> tensors(ReadPath read_path = ReadPath::pread) const {
    return *open_safetensors(safetensors_path(), read_path);
  }
  /// Experts straight from the safetensors file.
  std::shared_ptr<ExpertSource const> experts(ReadPath read_path = ReadPath::pread) const {
    return *make_tensor_expert_source(tensors(read_path), layout, names);
  }
  /// What `write_packed` wants. The sources must outlive it.
  PackInput pack_input(TensorSource const& dense, ExpertSource const& source) const {
    return {.config_json = R"({"d_model": 37})",
            .tokenizer = "not really a tokenizer",
            .layout = layout,
            .dense = &dense,
            .dense_names = {"norm", "embed", "nothing"},
            .experts = &source,
            .progress = {},
            .cancelled = {}};
  }
  Status pack() const {
    auto const dense = tensors();
    auto const source = experts();
    return write_packed(packed_path(), pack_input(*dense, *source));
  }

  TempDir folder;
  ExpertLayout layout;
  std::vector<std::vector<ExpertTensorNames>> names;
};

}  // namespace sida::testing
