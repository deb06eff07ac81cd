#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/io/temp_dir.hpp"

namespace sida::testing {

/// Bytes of a safetensors file around a header given as text: malformed ones too.
inline std::string safetensors_bytes(std::string const& header, std::string const& data) {
  std::string bytes(8, '\0');
  std::uint64_t const length = header.size();
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + header + data;
}

/// Builds well-formed safetensors files. Tensors stand in the file in the order in which they are added.
class SafetensorsBuilder {
 public:
  SafetensorsBuilder& add(std::string const& name, std::string const& dtype, std::vector<std::int64_t> const& shape,
                          std::string const& bytes) {
    header_[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {data_.size(), data_.size() + bytes.size()}}};
    data_ += bytes;
    return *this;
  }
  /// Elements as they stand in memory: float with "F32", uint16_t with "BF16" or "F16", and so on.
  template <class T>
  SafetensorsBuilder& add(std::string const& name, std::string const& dtype, std::vector<std::int64_t> const& shape,
                          std::vector<T> const& values) {
    return add(name, dtype, shape,
               std::string(reinterpret_cast<char const*>(values.data()), values.size() * sizeof(T)));
  }
  SafetensorsBuilder& metadata(std::map<std::string, std::string> const& entries) {
    header_["__metadata__"] = entries;
    return *this;
  }
  /// The header is padded with spaces so that data start at a multiple of 8, plus `extra_padding`.
  std::string bytes(std::size_t extra_padding = 0) const {
    std::string text = header_.dump();
    text.append((8 - text.size() % 8) % 8 + extra_padding, ' ');
    return safetensors_bytes(text, data_);
  }
  void write(std::string const& path, std::size_t extra_padding = 0) const { write_file(path, bytes(extra_padding)); }

 private:
  nlohmann::json header_ = nlohmann::json::object();
  std::string data_;
};

/// Writes `shards` (file name, content) and their model.safetensors.index.json into a folder.
inline void write_sharded(TempDir const& folder, std::vector<std::pair<std::string, SafetensorsBuilder>> const& shards,
                          std::map<std::string, std::string> const& weight_map) {
  for (auto const& [name, builder] : shards) builder.write(folder / name);
  nlohmann::json const index = {{"metadata", {{"total_size", 0}}}, {"weight_map", weight_map}};
  write_file(folder / "model.safetensors.index.json", index.dump());
}

}  // namespace sida::testing
