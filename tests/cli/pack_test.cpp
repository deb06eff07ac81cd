#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "sida/model/switch_checkpoint.hpp"
#include "tests/cli/golden.hpp"
#include "tests/cli/program.hpp"
#include "tests/io/temp_dir.hpp"

namespace sida::cli::test {
namespace {

std::string tokenizer() { return std::string(SIDA_GOLDENS) + "/tokenizer/tiny.model"; }

std::vector<std::byte> read_expert(SwitchCheckpoint const& checkpoint, ExpertId id) {
  std::vector<std::byte> buffer(slot_bytes_for(checkpoint.layout.size_bytes) + kRecordAlignment);
  auto const address = reinterpret_cast<std::size_t>(buffer.data());
  auto* const aligned = buffer.data() + (kRecordAlignment - address % kRecordAlignment) % kRecordAlignment;
  Status const status = checkpoint.experts->read(id, {aligned, slot_bytes_for(checkpoint.layout.size_bytes)});
  EXPECT_TRUE(status) << status.message();
  return {aligned, aligned + checkpoint.layout.size_bytes};
}

TEST(Pack, KeepsConfigDenseTensorsAndExperts) {
  testing::TempDir const folder;
  for (auto const* const name : {"plain", "sharded", "bfloat16", "full_model"}) {
    std::string const out = folder / (std::string(name) + ".sida");
    Outcome const outcome = run({"pack", golden(name), "--out", out});
    ASSERT_EQ(outcome.status, 0) << name << ": " << outcome.err;
    EXPECT_EQ(outcome.err, "");
    auto const before = open_switch_checkpoint(golden(name), ReadPath::pread);
    auto const after = open_switch_checkpoint(out, ReadPath::pread);
    ASSERT_TRUE(before && after) << name << ": " << after.message();
    EXPECT_EQ(after->config, before->config);
    EXPECT_EQ(after->dense_names, before->dense_names);
    EXPECT_EQ(after->has_head, before->has_head);
    for (std::uint32_t layer = 0; layer < before->config.moe_layers(); ++layer) {
      for (std::uint32_t expert = 0; expert < before->config.num_experts; ++expert) {
        EXPECT_EQ(read_expert(*after, {layer, expert}), read_expert(*before, {layer, expert})) << name;
      }
    }
  }
}

TEST(Pack, TakesATokenizerFromElsewhere) {
  testing::TempDir const folder;
  // The vocabulary of the small goldens is below the tokenizer's, so one is made that is large enough.
  testing::write_file(folder / "shape.json",
                      R"({"model_type": "switch_transformers", "d_model": 8, "d_ff": 8, "d_kv": 4, "num_heads": 2,)"
                      R"("num_layers": 2, "encoder_sparse_step": 2, "num_experts": 2, "vocab_size": 4096})");
  ASSERT_EQ(run({"synth", "--config", folder / "shape.json", "--out", folder / "m"}).status, 0);
  Outcome const outcome = run({"pack", folder / "m", "--out", folder / "m.sida", "--tokenizer", tokenizer()});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  auto const packed = open_switch_checkpoint(folder / "m.sida", ReadPath::pread);
  ASSERT_TRUE(packed) << packed.message();
  EXPECT_TRUE(packed->tokenizer == testing::read_file(tokenizer()));
}

TEST(Pack, PacksAContainerAgainToTheSameBytes) {
  testing::TempDir const folder;
  ASSERT_EQ(run({"pack", golden("plain"), "--out", folder / "a.sida"}).status, 0);
  ASSERT_EQ(run({"pack", folder / "a.sida", "--out", folder / "b.sida"}).status, 0);
  EXPECT_TRUE(testing::read_file(folder / "a.sida") == testing::read_file(folder / "b.sida"));
}

TEST(Pack, LeavesWhatWasThereWhenItFails) {
  testing::TempDir const folder;
  std::filesystem::copy(golden("plain"), folder / "m");
  testing::write_file(folder / "m.sida", "old");
  std::string weights = testing::read_file(folder / "m/model.safetensors");
  testing::write_file(folder / "m/model.safetensors", weights.substr(0, weights.size() - 1));
  Outcome const outcome = run({"pack", folder / "m", "--out", folder / "m.sida"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("model.safetensors"), std::string::npos) << outcome.err;
  EXPECT_EQ(testing::read_file(folder / "m.sida"), "old");
  EXPECT_EQ(folder.names().size(), 2U);
}

TEST(Pack, SaysWhatIsWrong) {
  testing::TempDir const folder;
  testing::write_file(folder / "text.model", "not a model");
  std::filesystem::create_directory(folder / "empty");
  std::vector<std::pair<std::vector<std::string>, int>> const cases = {
      {{"pack", folder / "none", "--out", folder / "m.sida"}, 1},
      {{"pack", folder / "empty", "--out", folder / "m.sida"}, 1},
      {{"pack", folder / "text.model", "--out", folder / "m.sida"}, 1},
      {{"pack", golden("plain"), "--out", folder / "none/m.sida"}, 1},
      {{"pack", golden("plain"), "--out", folder / "empty"}, 1},
      {{"pack", golden("plain"), "--out", folder / "m.sida", "--tokenizer", folder / "text.model"}, 1},
      {{"pack", golden("plain"), "--out", folder / "m.sida", "--tokenizer", folder / "none.model"}, 1},
      {{"pack", golden("plain")}, 2},
      {{"pack", "--out", folder / "m.sida"}, 2},
      {{"pack", golden("plain"), "--out", folder / "m.sida", "--unknown"}, 2},
  };
  for (auto const& [arguments, status] : cases) {
    Outcome const outcome = run(arguments);
    EXPECT_EQ(outcome.status, status) << arguments[1] << ": " << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_TRUE(outcome.err.starts_with("sida: error: ")) << outcome.err;
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "m.sida"));
}

}  // namespace
}  // namespace sida::cli::test
