#include "sida/model/switch_checkpoint.hpp"

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/switch_tensors.hpp"
#include "sida/io/packed.hpp"
#include "tests/model/encoder_fixture.hpp"
#include "tests/model/random_checkpoint.hpp"

namespace sida::testing {
namespace {

/// A checkpoint of nothing.
class NoTensors final : public TensorSource {
 public:
  std::string const& path() const noexcept override { return path_; }
  std::span<TensorInfo const> tensors() const noexcept override { return {}; }
  Status read(std::string_view, std::uint64_t, std::span<std::byte>) const override { return {Errc::not_found, ""}; }
  ReadStats read_stats() const noexcept override { return {}; }

 private:
  std::string path_ = "nothing";
};

constexpr char kNorm[] = "encoder.final_layer_norm.weight";

class SwitchCheckpointTest : public ::testing::Test {
 protected:
  SwitchConfig config_ = small_config();
  NamedTensors tensors_ = random_tensors(config_);
  TempDir folder_;

  Result<SwitchCheckpoint> open() {
    write_checkpoint(folder_, config_, tensors_);
    return open_switch_checkpoint(folder_.path(), ReadPath::pread);
  }
  /// Expects this failure, and all of `parts` in its message.
  void expect_failure(Errc code, std::vector<std::string> const& parts) {
    auto const opened = open();
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.code(), code) << opened.message();
    for (auto const& part : parts) {
      EXPECT_NE(opened.message().find(part), std::string::npos) << opened.message() << " without " << part;
    }
  }
  std::string outputs(std::string const& path) {
    LoadedEncoder loaded(path);
    InlinePool pool;
    SwitchEncoder::State state;
    run_batch(*loaded.encoder, random_batch({5, 12}, config_.vocab_size, 1), state, pool);
    return output_bytes(state);
  }
};

TEST_F(SwitchCheckpointTest, SaysWhatAFolderHolds) {
  auto const opened = open();
  ASSERT_TRUE(opened) << opened.message();
  EXPECT_EQ(opened->path, folder_.path());
  EXPECT_EQ(opened->config, config_);
  EXPECT_EQ(opened->config_json, config_text(config_));
  EXPECT_EQ(opened->tokenizer, "");
  EXPECT_TRUE(opened->has_head);
  EXPECT_EQ(opened->layout.shape, (ExpertShape{FfnKind::relu, Dtype::f32, config_.d_model, config_.d_ff}));
  EXPECT_EQ(opened->expert_count(), 12U);
  EXPECT_EQ(opened->expert_bytes(), 12U * 2 * 4 * 26 * 37);
  std::uint64_t all_bytes = 0;
  for (auto const& [name, tensor] : tensors_) all_bytes += 4 * tensor.values.size();
  EXPECT_EQ(opened->dense_bytes() + opened->expert_bytes(), all_bytes);
  std::vector<std::string> names = opened->dense_names;
  EXPECT_EQ(names.size() + 24, tensors_.size());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
}

TEST_F(SwitchCheckpointTest, ReadsTheTokenizerBesideTheModel) {
  write_file(folder_ / "spiece.model", std::string("bytes\0of a model", 16));
  auto const opened = open();
  ASSERT_TRUE(opened) << opened.message();
  EXPECT_EQ(opened->tokenizer, std::string("bytes\0of a model", 16));
}

TEST_F(SwitchCheckpointTest, NamesAnyMissingTensor) {
  NamedTensors const all = tensors_;
  for (auto const& [name, tensor] : all) {
    if (name == "shared.weight") continue;  // see the alias
    SCOPED_TRACE(name);
    tensors_ = all;
    tensors_.erase(name);
    expect_failure(Errc::not_found, {folder_.path(), name});
  }
}

TEST_F(SwitchCheckpointTest, NamesAnyMisshapenTensor) {
  NamedTensors const all = tensors_;
  for (auto const& [name, tensor] : all) {
    SCOPED_TRACE(name);
    tensors_ = all;
    NamedTensor& bad = tensors_[name];
    bad.shape.front() += 1;
    bad.values.resize(bad.values.size() / static_cast<std::size_t>(tensor.shape.front()) *
                      static_cast<std::size_t>(bad.shape.front()));
    expect_failure(Errc::corrupt,
                   {folder_.path(), name, std::to_string(tensor.shape.front()), std::to_string(bad.shape.front())});
  }
}

TEST_F(SwitchCheckpointTest, RejectsATransposedTensor) {
  std::swap(tensors_["shared.weight"].shape[0], tensors_["shared.weight"].shape[1]);
  expect_failure(Errc::corrupt, {"shared.weight", "[26, 41]", "[41, 26]"});
}

TEST_F(SwitchCheckpointTest, RejectsAnotherNumberOfLabels) {
  config_.num_labels = 2;
  NamedTensors const all = tensors_;
  expect_failure(Errc::corrupt, {"classification_head.out_proj.weight", "[3, 26]", "[2, 26]"});
}

TEST_F(SwitchCheckpointTest, RejectsTypesThatItDoesNotComputeWith) {
  write_file(folder_ / "config.json", config_text(config_));
  tensors_.erase(kNorm);
  auto builder = builder_of(tensors_);
  builder.add(kNorm, "I32", {config_.d_model}, std::vector<std::int32_t>(26, 1));
  builder.write(folder_ / "model.safetensors");
  auto const opened = open_switch_checkpoint(folder_.path(), ReadPath::pread);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.message().find(kNorm), std::string::npos) << opened.message();
}

TEST_F(SwitchCheckpointTest, RejectsExpertsOfTwoTypes) {
  tensors_["encoder.block.3.layer.1.mlp.experts.expert_4.wo.weight"].dtype = Dtype::bf16;
  auto const opened = open();
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.message().find("block.3.layer.1.mlp.experts.expert_4.wo"), std::string::npos) << opened.message();
}

TEST_F(SwitchCheckpointTest, RejectsAModelWithoutExperts) {
  config_.encoder_sparse_step = 0;
  expect_failure(Errc::unsupported, {"config.json", "sparse"});
}

TEST_F(SwitchCheckpointTest, NamesMissingFiles) {
  auto const nowhere = open_switch_checkpoint(folder_ / "nowhere", ReadPath::pread);
  EXPECT_EQ(nowhere.code(), Errc::not_found);
  EXPECT_NE(nowhere.message().find("nowhere"), std::string::npos);
  auto const empty = open_switch_checkpoint(folder_.path(), ReadPath::pread);
  EXPECT_EQ(empty.code(), Errc::not_found);
  EXPECT_NE(empty.message().find("config.json"), std::string::npos) << empty.message();
  write_file(folder_ / "config.json", config_text(config_));
  auto const bare = open_switch_checkpoint(folder_.path(), ReadPath::pread);
  EXPECT_EQ(bare.code(), Errc::not_found);
  EXPECT_NE(bare.message().find("safetensors"), std::string::npos) << bare.message();
}

TEST_F(SwitchCheckpointTest, RejectsAFileThatIsNoContainer) {
  write_file(folder_ / "model.sida", "no container");
  auto const opened = open_switch_checkpoint(folder_ / "model.sida", ReadPath::pread);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.message().find("model.sida"), std::string::npos) << opened.message();
}

TEST_F(SwitchCheckpointTest, FindsTheEmbeddingUnderItsAlias) {
  ASSERT_TRUE(open());
  std::string const before = outputs(folder_.path());
  tensors_["encoder.embed_tokens.weight"] = tensors_["shared.weight"];
  tensors_.erase("shared.weight");
  ASSERT_TRUE(open());
  EXPECT_EQ(outputs(folder_.path()), before);
  tensors_.erase("encoder.embed_tokens.weight");
  expect_failure(Errc::not_found, {"shared.weight"});
}

TEST_F(SwitchCheckpointTest, TakesThePrefixOfAWrapper) {
  ASSERT_TRUE(open());
  std::string const before = outputs(folder_.path());
  NamedTensors prefixed;
  for (auto const& [name, tensor] : tensors_) {
    prefixed[name.starts_with("classification") ? name : "switch_transformers." + name] = tensor;
  }
  tensors_ = prefixed;
  ASSERT_TRUE(open());
  EXPECT_EQ(outputs(folder_.path()), before);
}

TEST_F(SwitchCheckpointTest, IgnoresTheDecoder) {
  ASSERT_TRUE(open());
  std::string const before = outputs(folder_.path());
  NamedTensors const encoder = tensors_;
  for (auto const& [name, tensor] : encoder) {
    if (name.starts_with("encoder.")) tensors_["decoder." + name.substr(8)] = tensor;
  }
  tensors_["lm_head.weight"] = tensors_["shared.weight"];
  auto const opened = open();
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->dense_names.size() + 24, encoder.size());
  EXPECT_EQ(outputs(folder_.path()), before);
}

TEST_F(SwitchCheckpointTest, MayHaveNoHead) {
  std::erase_if(tensors_, [](auto const& entry) { return entry.first.starts_with("classification"); });
  auto const opened = open();
  ASSERT_TRUE(opened) << opened.message();
  EXPECT_FALSE(opened->has_head);
  LoadedEncoder loaded(folder_.path());
  InlinePool pool;
  SwitchEncoder::State state;
  run_batch(*loaded.encoder, random_batch({3}, config_.vocab_size, 1), state, pool);
  EXPECT_EQ(state.hidden().rows, 3);
  EXPECT_EQ(state.pooled().rows, 1);
  EXPECT_EQ(state.logits().rows, 0);
}

TEST_F(SwitchCheckpointTest, PacksWithoutChangingAnything) {
  tensors_ = random_tensors(config_, Dtype::bf16, Dtype::f16);
  write_file(folder_ / "spiece.model", "pieces");
  auto const opened = open();
  ASSERT_TRUE(opened) << opened.message();
  std::string const path = folder_ / "model.sida";
  std::uint64_t reported = 0;
  SwitchPackOptions options;
  options.progress = [&](std::uint64_t done, std::uint64_t) { reported = done; };
  ASSERT_TRUE(pack_switch_checkpoint(*opened, path, options));
  EXPECT_GT(reported, opened->expert_bytes());
  for (ReadPath const read_path : {ReadPath::pread, ReadPath::mmap}) {
    auto const packed = open_switch_checkpoint(path, read_path);
    ASSERT_TRUE(packed) << packed.message();
    EXPECT_EQ(packed->config, config_);
    EXPECT_EQ(packed->config_json, opened->config_json);
    EXPECT_EQ(packed->tokenizer, "pieces");
    EXPECT_TRUE(packed->has_head);
    EXPECT_EQ(packed->layout.shape, opened->layout.shape);
    EXPECT_EQ(packed->dense_names, opened->dense_names);
    EXPECT_EQ(packed->dense_bytes(), opened->dense_bytes());
    EXPECT_EQ(packed->expert_bytes(), opened->expert_bytes());
  }
  EXPECT_EQ(outputs(path), outputs(folder_.path()));
}

TEST_F(SwitchCheckpointTest, PacksAnotherTokenizerAndStopsWhenTold) {
  auto const opened = open();
  ASSERT_TRUE(opened) << opened.message();
  std::string const path = folder_ / "model.sida";
  SwitchPackOptions options;
  options.cancelled = [] { return true; };
  EXPECT_EQ(pack_switch_checkpoint(*opened, path, options).code(), Errc::cancelled);
  EXPECT_FALSE(std::filesystem::exists(path));
  options = {};
  options.tokenizer = "other pieces";
  ASSERT_TRUE(pack_switch_checkpoint(*opened, path, options));
  auto const packed = open_switch_checkpoint(path, ReadPath::pread);
  ASSERT_TRUE(packed);
  EXPECT_EQ(packed->tokenizer, "other pieces");
}

TEST_F(SwitchCheckpointTest, RejectsAContainerWhoseConfigContradictsItsExperts) {
  auto const opened = open();
  ASSERT_TRUE(opened) << opened.message();
  for (auto const change : {+[](SwitchConfig& c) { c.d_ff += 1; }, +[](SwitchConfig& c) { c.num_experts -= 1; },
                            +[](SwitchConfig& c) { c.activation = FfnKind::gelu; }}) {
    auto changed = *opened;
    change(changed.config);
    changed.config_json = config_text(changed.config);
    ASSERT_TRUE(pack_switch_checkpoint(changed, folder_ / "model.sida"));
    auto const packed = open_switch_checkpoint(folder_ / "model.sida", ReadPath::pread);
    ASSERT_FALSE(packed);
    EXPECT_EQ(packed.code(), Errc::corrupt) << packed.message();
    EXPECT_NE(packed.message().find("model.sida"), std::string::npos) << packed.message();
  }
}

TEST(SwitchTensors, DoNotMakeNamesOfExpertsThatAreNotThere) {
  SwitchConfig config;  // 268 million experts, whose names would take tens of gigabytes
  config.num_layers = 4096;
  config.encoder_sparse_step = 1;
  config.num_experts = 65534;
  auto const names = model_detail::find_expert_names(config, "", NoTensors());
  EXPECT_EQ(names.code(), Errc::not_found);
  EXPECT_EQ(names.message(),
            "nothing: no tensor 'encoder.block.0.layer.1.mlp.experts.expert_0.wi.weight', but config.json implies "
            "65534 experts");
}

}  // namespace
}  // namespace sida::testing
