#include "predict/lstm_hash_weights.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "core/shape_text.hpp"
#include "dense/tensor_finder.hpp"
#include "dense/weight_loader.hpp"
#include "sida/detail/try.hpp"
#include "sida/route/routing.hpp"

namespace sida::inline v0::predict_detail {
namespace {

using dense::TensorFinder;

struct LinearTensors {
  TensorInfo const* weight = nullptr;
  TensorInfo const* bias = nullptr;
};

struct LstmLayerTensors {
  TensorInfo const* input = nullptr;
  TensorInfo const* recurrent = nullptr;
  TensorInfo const* input_bias = nullptr;
  TensorInfo const* recurrent_bias = nullptr;
};

struct LstmHashTensors {
  LinearTensors compression;
  LstmLayerTensors lstm[2];
  LinearTensors residual;
  std::vector<LinearTensors> heads;
};

LinearTensors find_linear(TensorFinder& finder, std::string const& name, std::int64_t out, std::int64_t in) {
  LinearTensors linear;
  finder.find(linear.weight, name + ".weight", {out, in});
  finder.find(linear.bias, name + ".bias", {out});
  return linear;
}

/// The shape of a matrix that others are measured by.
Result<std::pair<std::int64_t, std::int64_t>> matrix_shape(TensorSource const& source, std::string const& name) {
  TensorInfo const* const found = source.find(name);
  if (found == nullptr)
    return Error(Errc::not_found, source.path() + ": no tensor '" + name + "', which a hash function has");
  if (found->shape.size() != 2 || std::ranges::any_of(found->shape, [](auto size) { return size < 1; })) {
    return Error(Errc::corrupt, source.describe(*found) + " is " + detail::shape_text(found->shape) + ", not a matrix");
  }
  return std::pair(found->shape[0], found->shape[1]);
}

/// Blocks N that have a head "fc.N.weight", ascending.
std::vector<std::uint32_t> head_blocks(TensorSource const& source) {
  constexpr std::string_view kBefore = "fc.";
  constexpr std::string_view kAfter = ".weight";
  std::vector<std::uint32_t> blocks;
  for (TensorInfo const& tensor : source.tensors()) {
    std::string_view name = tensor.name;
    if (!name.starts_with(kBefore) || !name.ends_with(kAfter)) continue;
    name.remove_prefix(kBefore.size());
    name.remove_suffix(std::min(kAfter.size(), name.size()));
    std::uint32_t block = 0;
    auto const [end, error] = std::from_chars(name.data(), name.data() + name.size(), block);
    // "fc.01" would be found under another name than it has.
    if (error == std::errc() && name == std::to_string(block)) blocks.push_back(block);
  }
  std::ranges::sort(blocks);
  return blocks;
}

Result<LstmHashTensors> find_tensors(TensorSource const& source) {
  SIDA_TRY_ASSIGN(auto const compression, matrix_shape(source, "compression_fc.weight"));
  auto const [hidden, d_model] = compression;
  if (hidden > std::int64_t{1} << 20) {
    return Error(Errc::unsupported, source.path() + ": a hidden layer of " + std::to_string(hidden));
  }
  auto const blocks = head_blocks(source);
  if (blocks.empty()) return Error(Errc::not_found, source.path() + ": no head 'fc.N.weight', N a block's number");
  std::string const first_head = "fc." + std::to_string(blocks.front());
  SIDA_TRY_ASSIGN(auto const head, matrix_shape(source, first_head + ".weight"));
  if (head.first >= kNoExpert) {
    return Error(Errc::unsupported, source.path() + ": " + std::to_string(head.first) + " experts in a layer");
  }

  LstmHashTensors tensors;
  TensorFinder finder(source, "'compression_fc.weight' with '" + first_head + ".weight'");
  tensors.compression = find_linear(finder, "compression_fc", hidden, d_model);
  for (int layer = 0; layer < 2; ++layer) {
    std::string const suffix = "_l" + std::to_string(layer);
    LstmLayerTensors& to = tensors.lstm[layer];
    finder.find(to.input, "lstm.weight_ih" + suffix, {4 * hidden, hidden});
    finder.find(to.recurrent, "lstm.weight_hh" + suffix, {4 * hidden, hidden});
    finder.find(to.input_bias, "lstm.bias_ih" + suffix, {4 * hidden});
    finder.find(to.recurrent_bias, "lstm.bias_hh" + suffix, {4 * hidden});
  }
  tensors.residual = find_linear(finder, "residual_fc", hidden, hidden);
  for (std::uint32_t const block : blocks) {
    tensors.heads.push_back(find_linear(finder, "fc." + std::to_string(block), head.first, hidden));
  }
  SIDA_TRY(finder.take_status());
  return tensors;
}

void load_linear(dense::WeightLoader& loader, LinearTensors const& from, LinearWeights& to) {
  loader.matrix(to.weight, from.weight);
  loader.floats(to.bias, from.bias);
}

void load_all(dense::WeightLoader& loader, LstmHashTensors const& from, LstmHashWeights& to) {
  load_linear(loader, from.compression, to.compression);
  for (int layer = 0; layer < 2; ++layer) {
    loader.matrix(to.lstm[layer].input, from.lstm[layer].input);
    loader.matrix(to.lstm[layer].recurrent, from.lstm[layer].recurrent);
    loader.floats(to.lstm[layer].input_bias, from.lstm[layer].input_bias);
    loader.floats(to.lstm[layer].recurrent_bias, from.lstm[layer].recurrent_bias);
  }
  load_linear(loader, from.residual, to.residual);
  to.heads.resize(from.heads.size());
  for (std::size_t i = 0; i < from.heads.size(); ++i) load_linear(loader, from.heads[i], to.heads[i]);
}

}  // namespace

Result<LstmHashWeights> load_lstm_hash_weights(TensorSource const& source, MemoryResource& memory) {
  SIDA_TRY_ASSIGN(auto const tensors, find_tensors(source));
  LstmHashWeights weights;
  auto const walk = [&](dense::WeightLoader& loader) { load_all(loader, tensors, weights); };
  SIDA_TRY_ASSIGN(weights.arena, dense::load_weights(source, memory, walk));
  return weights;
}

}  // namespace sida::inline v0::predict_detail
