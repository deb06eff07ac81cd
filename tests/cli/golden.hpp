#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "sida/io/safetensors.hpp"
#include "tests/io/safetensors_builder.hpp"
#include "tests/io/temp_dir.hpp"

namespace sida::cli::test {

/// The folder of one of the small Switch models of tests/goldens.
inline std::string golden(std::string const& name) { return std::string(SIDA_GOLDENS) + "/switch/" + name; }

/// A small Switch classifier of tests/goldens/switch and what transformers computes from it.
struct Golden {
  explicit Golden(std::string const& name) : folder(golden(name)) {
    auto const opened = open_safetensors(folder + "/golden.safetensors", ReadPath::pread);
    if (!opened) throw std::runtime_error(opened.message());
    ids = read<std::int32_t>(**opened, "ids");
    lengths = read<std::int32_t>(**opened, "lengths");
    hidden = read<float>(**opened, "hidden");
    logits = read<float>(**opened, "logits");
    experts = read<std::int32_t>(**opened, "experts");
    kept = read<std::uint8_t>(**opened, "kept");
  }

  /// The sequences as JSONL of ids, `times` over; label of sequence i is i % 2.
  std::string jsonl(int times = 1) const {
    std::string text;
    for (int n = 0; n < times; ++n) {
      std::size_t first = 0;
      for (std::size_t s = 0; s < lengths.size(); ++s) {
        auto const begin = ids.begin() + static_cast<std::ptrdiff_t>(first);
        nlohmann::json const row = {{"ids", std::vector(begin, begin + lengths[s])}, {"label", s % 2}};
        text += row.dump() + "\n";
        first += static_cast<std::size_t>(lengths[s]);
      }
    }
    return text;
  }

  template <class T>
  static std::vector<T> read(TensorSource const& source, std::string const& name) {
    auto const* const info = source.find(name);
    if (info == nullptr) throw std::runtime_error("no tensor " + name);
    std::vector<T> values(info->size_bytes / sizeof(T));
    if (Status status = source.read(name, 0, std::as_writable_bytes(std::span(values))); !status) {
      throw std::runtime_error(status.message());
    }
    return values;
  }

  std::string folder;
  std::vector<std::int32_t> ids, lengths;
  std::vector<float> hidden, logits;
  std::vector<std::int32_t> experts;  // [tokens, MoE layers], before capacity
  std::vector<std::uint8_t> kept;     // [tokens, MoE layers]
};

/// Writes a copy of a checkpoint without its classification head.
inline void write_bare_encoder(std::string const& from, std::string const& to) {
  std::filesystem::create_directories(to);
  std::filesystem::copy_file(from + "/config.json", to + "/config.json");
  auto const source = open_safetensors(from, ReadPath::pread);
  if (!source) throw std::runtime_error(source.message());
  testing::SafetensorsBuilder builder;
  for (TensorInfo const& info : (*source)->tensors()) {
    if (info.name.starts_with("classification_head")) continue;
    auto const bytes = Golden::read<char>(**source, info.name);
    builder.add(info.name, info.dtype_name, info.shape, std::string(bytes.begin(), bytes.end()));
  }
  builder.write(to + "/model.safetensors");
}

}  // namespace sida::cli::test
