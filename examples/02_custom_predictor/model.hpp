#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

#include <sida/core/expert_layout.hpp>
#include <sida/core/matrix.hpp>
#include <sida/io/expert_source.hpp>
#include <sida/layer/moe_shape.hpp>

/// A stack of MoE layers with random weights that decodes a token at a time: small, but the experts are real records
/// in a file, and the hidden state carries over from token to token as a decoder's context does.
class Model {
 public:
  static constexpr std::uint32_t kLayers = 6;
  static constexpr std::uint32_t kExperts = 32;
  static constexpr std::int64_t kTopK = 2;
  static constexpr std::int64_t kDModel = 128;
  static constexpr std::int64_t kDFf = 512;
  static constexpr std::int64_t kVocabulary = 256;

  explicit Model(std::uint32_t seed);

  static sida::MoeShape shape(std::uint32_t layer) {
    return {layer, kExperts, kTopK, sida::FfnKind::swiglu, kDModel, kDFf};
  }
  /// hidden [d_model]: moves towards the embedding of `token`.
  void take(std::uint32_t token, std::vector<float>& hidden) const;
  /// out [d_model]: x scaled to a root mean square of 1.
  static void normalise(std::vector<float> const& x, std::vector<float>& out);
  /// logits [experts] of a layer's router.
  void router_logits(std::uint32_t layer, std::vector<float> const& x, std::vector<float>& logits) const;
  /// The most likely next token.
  std::uint32_t next_token(std::vector<float> const& x) const;

 private:
  std::vector<float> embeddings_;  // [vocabulary, d_model]
  std::vector<float> routers_;     // [layers, experts, d_model]
};

/// The experts' records in a temporary file that disappears with this object.
class RecordFile final : public sida::ExpertSource {
 public:
  /// @return io.
  static sida::Result<std::shared_ptr<RecordFile const>> write(std::uint32_t seed);

  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return experts_; }
  std::size_t record_bytes(sida::ExpertId) const noexcept override { return layout_.size_bytes; }
  sida::Status read(sida::ExpertId id, std::span<std::byte> dst) const override;

 private:
  explicit RecordFile(sida::ExpertLayout const& layout) : layout_(layout) {}

  sida::ExpertLayout layout_;
  std::vector<std::uint32_t> experts_ = std::vector<std::uint32_t>(Model::kLayers, Model::kExperts);
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_{std::tmpfile(), std::fclose};
};
