#include "model.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <random>
#include <unistd.h>

namespace {

std::vector<float> random_floats(std::int64_t count, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0F, scale);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

float dot(float const* a, float const* b) {
  float sum = 0.0F;
  for (std::int64_t i = 0; i < Model::kDModel; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

Model::Model(std::uint32_t seed) {
  std::mt19937 random(seed);
  embeddings_ = random_floats(kVocabulary * kDModel, 1.0F, random);
  routers_ = random_floats(std::int64_t{kLayers} * kExperts * kDModel, 0.3F, random);
}

void Model::take(std::uint32_t token, std::vector<float>& hidden) const {
  float const* embedding = &embeddings_[token * kDModel];
  for (std::size_t i = 0; i < hidden.size(); ++i) hidden[i] = 0.8F * hidden[i] + 0.2F * embedding[i];
}

void Model::normalise(std::vector<float> const& x, std::vector<float>& out) {
  float const scale = 1.0F / std::sqrt(dot(x.data(), x.data()) / static_cast<float>(kDModel) + 1e-6F);
  std::transform(x.begin(), x.end(), out.begin(), [scale](float value) { return scale * value; });
}

void Model::router_logits(std::uint32_t layer, std::vector<float> const& x, std::vector<float>& logits) const {
  float const* row = &routers_[std::size_t{layer} * kExperts * kDModel];
  for (std::size_t expert = 0; expert < kExperts; ++expert) logits[expert] = dot(row + expert * kDModel, x.data());
}

std::uint32_t Model::next_token(std::vector<float> const& x) const {
  std::vector<float> logits(kVocabulary);
  for (std::size_t token = 0; token < logits.size(); ++token)
    logits[token] = dot(&embeddings_[token * kDModel], x.data());
  return static_cast<std::uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

sida::Result<std::shared_ptr<RecordFile const>> RecordFile::write(std::uint32_t seed) {
  auto const layout = sida::ExpertLayout::of({sida::FfnKind::swiglu, sida::Dtype::bf16, Model::kDModel, Model::kDFf});
  if (!layout) return layout.error();
  std::shared_ptr<RecordFile> made(new RecordFile(*layout));
  if (!made->file_) return sida::Error(sida::Errc::io, std::string("temporary file: ") + std::strerror(errno));
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, 1.0F / std::sqrt(static_cast<float>(Model::kDModel)));
  std::vector<sida::bf16> record(layout->size_bytes / sizeof(sida::bf16));
  for (std::uint32_t i = 0; i < Model::kLayers * Model::kExperts; ++i) {
    for (sida::bf16& value : record) value = sida::to_bf16(normal(random));
    if (std::fwrite(record.data(), sizeof(sida::bf16), record.size(), made->file_.get()) != record.size()) {
      return sida::Error(sida::Errc::io, "temporary file: could not be written");
    }
  }
  if (std::fflush(made->file_.get()) != 0) return sida::Error(sida::Errc::io, "temporary file: could not be written");
  return std::shared_ptr<RecordFile const>(std::move(made));
}

sida::Status RecordFile::read(sida::ExpertId id, std::span<std::byte> dst) const {
  std::size_t const bytes = layout_.size_bytes;
  auto const offset = static_cast<off_t>((std::size_t{id.layer} * Model::kExperts + id.expert) * bytes);
  ssize_t const count = ::pread(fileno(file_.get()), dst.data(), bytes, offset);  // no common position: many threads
  if (count != static_cast<ssize_t>(bytes)) return {sida::Errc::io, "temporary file: " + to_string(id)};
  return {};
}
