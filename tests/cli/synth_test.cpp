#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <sys/inotify.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli/synth_random.hpp"
#include "cli/synth_tensors.hpp"
#include "cli/synth_writer.hpp"
#include "io/file_descriptor.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/io/safetensors.hpp"
#include "sida/model/switch_checkpoint.hpp"
#include "sida/model/switch_encoder.hpp"
#include "sida/store/fast_tier.hpp"
#include "tests/cli/program.hpp"
#include "tests/io/temp_dir.hpp"

namespace sida::cli::test {
namespace {

struct Shape {
  int experts = 8;
  int layers = 6;
  int d_model = 64;
  char const* extra = "";  // further keys of the config
};

std::string config_json(Shape const& shape) {
  return R"({"model_type": "switch_transformers", "architectures": ["SwitchTransformersForConditionalGeneration"],)"
         R"("torch_dtype": "float32", "d_kv": 16, "num_heads": 4, "d_ff": 96, "vocab_size": 512,)"
         R"("encoder_sparse_step": 2, "expert_capacity": 64, "feed_forward_proj": "relu", "num_experts": )" +
         std::to_string(shape.experts) + ", \"num_layers\": " + std::to_string(shape.layers) +
         ", \"d_model\": " + std::to_string(shape.d_model) + shape.extra + "}";
}

/// Ids as text has them: few are frequent.
std::vector<std::int32_t> random_ids(std::size_t count, std::uint64_t seed) {
  std::vector<std::int32_t> ids(count);
  for (std::size_t i = 0; i < count; ++i) {
    double const u = static_cast<double>(random_bits(seed, i) >> 11) * 0x1p-53;
    ids[i] = static_cast<std::int32_t>(std::pow(511.0, u));
  }
  return ids;
}

class Synth : public ::testing::Test {
 protected:
  Outcome synth(Shape const& shape, std::string const& out, std::vector<std::string> const& more = {}) {
    testing::write_file(folder / "shape.json", config_json(shape));
    std::vector<std::string> arguments = {"synth", "--config", folder / "shape.json", "--out", out};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }

  testing::TempDir folder;
};

TEST_F(Synth, WritesACheckpointThatOpens) {
  for (auto const* const dtype : {"bf16", "fp32"}) {
    std::string const out = folder / dtype;
    Outcome const outcome = synth({}, out, {"--dtype", dtype, "--seed", "7"});
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(outcome.err, "");
    auto const checkpoint = open_switch_checkpoint(out, ReadPath::pread);
    ASSERT_TRUE(checkpoint) << checkpoint.message();
    EXPECT_TRUE(checkpoint->has_head);
    EXPECT_EQ(to_string(checkpoint->layout.shape.dtype), dtype);
    EXPECT_EQ(checkpoint->expert_count(), 24U);
    EXPECT_EQ(checkpoint->dense->tensors().size(), checkpoint->dense_names.size() + 48) << "nothing else in the file";
    auto const config = nlohmann::json::parse(testing::read_file(out + "/config.json"));
    EXPECT_EQ(config["dtype"], dtype == std::string("bf16") ? "bfloat16" : "float32");
    EXPECT_FALSE(config.contains("torch_dtype"));
    EXPECT_EQ(config["num_labels"], 2);
    EXPECT_EQ(config["architectures"], nlohmann::json({"SwitchTransformersEncoderModel"}));
  }
}

TEST_F(Synth, FollowsTheShape) {
  Shape const shape{.experts = 3, .layers = 2, .d_model = 33, .extra = R"(, "num_labels": 5)"};
  ASSERT_EQ(synth(shape, folder / "m").status, 0);
  auto const checkpoint = open_switch_checkpoint(folder / "m", ReadPath::pread);
  ASSERT_TRUE(checkpoint) << checkpoint.message();
  EXPECT_EQ(checkpoint->config.num_labels, 5);
  EXPECT_EQ(checkpoint->expert_count(), 3U);
}

TEST_F(Synth, WritesAHeaderAsTheFormatWants) {
  ASSERT_EQ(synth({}, folder / "m").status, 0);
  std::string const file = testing::read_file(folder / "m/model.safetensors");
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(file[i]);
  EXPECT_EQ(length % 8, 0U);
  auto const header = nlohmann::json::parse(file.substr(8, length));
  EXPECT_EQ(header["__metadata__"]["format"], "pt");
  std::uint64_t end = 0;
  for (auto const& [name, entry] : header.items()) {
    if (name != "__metadata__") end = std::max(end, entry["data_offsets"][1].get<std::uint64_t>());
  }
  EXPECT_EQ(file.size(), 8 + length + end);
}

TEST_F(Synth, GivesTheSameBytesForTheSameSeed) {
  ASSERT_EQ(synth({}, folder / "a", {"--seed", "1", "--threads", "1"}).status, 0);
  ASSERT_EQ(synth({}, folder / "b", {"--seed", "1", "--threads", "3"}).status, 0);
  ASSERT_EQ(synth({}, folder / "c", {"--seed", "2"}).status, 0);
  auto const weights = [&](std::string const& name) {
    return testing::read_file(folder / (name + "/model.safetensors"));
  };
  EXPECT_TRUE(weights("a") == weights("b"));
  EXPECT_FALSE(weights("a") == weights("c"));
  EXPECT_EQ(testing::read_file(folder / "a/config.json"), testing::read_file(folder / "b/config.json"));
}

TEST_F(Synth, ReplacesItsOwnFilesOnly) {
  ASSERT_EQ(synth({}, folder / "m", {"--seed", "1"}).status, 0);
  std::string const before = testing::read_file(folder / "m/model.safetensors");
  testing::write_file(folder / "m/notes.txt", "mine");
  ASSERT_EQ(synth({}, folder / "m", {"--seed", "2"}).status, 0);
  EXPECT_FALSE(testing::read_file(folder / "m/model.safetensors") == before);
  EXPECT_EQ(testing::read_file(folder / "m/notes.txt"), "mine");
}

TEST_F(Synth, RefusesToReplaceWhatItDidNotWrite) {
  std::string const model = folder / "m";
  std::filesystem::copy(std::string(SIDA_GOLDENS) + "/switch/plain", model);
  std::string const weights = testing::read_file(model + "/model.safetensors");
  std::string const config = testing::read_file(model + "/config.json");
  for (auto const& shape : {model + "/config.json", folder / "shape.json"}) {
    testing::write_file(folder / "shape.json", config_json({}));
    Outcome const outcome = run({"synth", "--config", shape, "--out", model});
    EXPECT_EQ(outcome.status, 1);
    EXPECT_NE(outcome.err.find("m/model.safetensors: weights that"), std::string::npos) << outcome.err;
  }
  EXPECT_TRUE(testing::read_file(model + "/model.safetensors") == weights);
  EXPECT_EQ(testing::read_file(model + "/config.json"), config);
  std::filesystem::create_directory(folder / "shards");
  testing::write_file(folder / "shards/model.safetensors.index.json", "{}");
  EXPECT_EQ(synth({}, folder / "shards").status, 1);
  EXPECT_EQ(synth({}, folder.path()).status, 0) << "a folder without weights, whatever else is there";
}

TEST_F(Synth, RefusesToReplaceAForeignConfigOrTokenizer) {
  std::string const tokenizer = std::string(SIDA_GOLDENS) + "/tokenizer/tiny.model";
  for (std::string const name : {"config.json", "spiece.model"}) {
    std::string const file = folder / ("of " + name) + "/" + name;
    std::filesystem::create_directory(folder / ("of " + name));
    testing::write_file(file, "somebody's");
    Outcome const outcome = synth({}, folder / ("of " + name), {"--tokenizer", tokenizer});
    EXPECT_EQ(outcome.status, 1);
    EXPECT_NE(outcome.err.find(name + ": \"sida synth\" would replace this"), std::string::npos) << outcome.err;
    EXPECT_EQ(testing::read_file(file), "somebody's");
  }
  EXPECT_EQ(synth({}, folder / "of spiece.model").status, 0) << "without --tokenizer it stays";
  EXPECT_EQ(testing::read_file(folder / "of spiece.model/spiece.model"), "somebody's");
}

TEST_F(Synth, RefusesToWriteBesideOtherWeights) {
  for (std::string const name : {"pytorch_model.bin", "pytorch_model-00001-of-00002.bin",
                                 "pytorch_model.bin.index.json", "model-00001-of-00002.safetensors"}) {
    std::string const model = folder / ("m" + name);
    ASSERT_EQ(synth({}, model).status, 0);
    testing::write_file(model + "/" + name, "weights");
    std::string const config = testing::read_file(model + "/config.json");
    Outcome const outcome = synth({.experts = 4}, model);
    EXPECT_EQ(outcome.status, 1) << name;
    EXPECT_NE(outcome.err.find("/" + name + ": weights that"), std::string::npos) << outcome.err;
    EXPECT_EQ(testing::read_file(model + "/config.json"), config);
  }
}

TEST_F(Synth, RefusesToReplaceItsInputs) {
  std::filesystem::create_directory(folder / "m");
  testing::write_file(folder / "m/config.json", config_json({}));
  Outcome const outcome = run({"synth", "--config", folder / "m/config.json", "--out", folder / "m"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("would replace what is read from"), std::string::npos) << outcome.err;
  EXPECT_EQ(testing::read_file(folder / "m/config.json"), config_json({}));
}

/// What happens to the names in a folder, as inotify tells it.
class FolderEvents {
 public:
  explicit FolderEvents(std::string const& folder) : fd_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    EXPECT_GE(::inotify_add_watch(fd_.get(), folder.c_str(), IN_DELETE | IN_MOVED_TO), 0);
  }
  /// "-NAME" for a file that went, "+NAME" for one that came by a rename.
  std::vector<std::string> all() const {
    std::vector<std::string> events;
    alignas(inotify_event) char buffer[16384];
    ssize_t const size = ::read(fd_.get(), buffer, sizeof buffer);
    for (ssize_t at = 0; at < size;) {
      auto const* const event = reinterpret_cast<inotify_event const*>(buffer + at);
      events.push_back(((event->mask & IN_DELETE) != 0 ? "-" : "+") + std::string(event->name));
      at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
    }
    return events;
  }

 private:
  io_detail::FileDescriptor fd_;
};

TEST_F(Synth, NeverLeavesNewWeightsUnderAnOldConfig) {
  ASSERT_EQ(synth({}, folder / "m", {"--seed", "1"}).status, 0);
  FolderEvents const events(folder / "m");
  ASSERT_EQ(synth({}, folder / "m", {"--seed", "2"}).status, 0);
  EXPECT_EQ(events.all(), (std::vector<std::string>{"-config.json", "+model.safetensors", "+config.json"}));
}

TEST_F(Synth, PutsTheTokenizerBesideTheWeights) {
  std::string const tokenizer = std::string(SIDA_GOLDENS) + "/tokenizer/tiny.model";
  ASSERT_EQ(synth({}, folder / "m", {"--tokenizer", tokenizer}).status, 0);
  EXPECT_TRUE(testing::read_file(folder / "m/spiece.model") == testing::read_file(tokenizer));
}

TEST_F(Synth, RejectsATokenizerThatDoesNotFit) {
  testing::write_file(folder / "not.model", "hello");
  Outcome const outcome = synth({}, folder / "m", {"--tokenizer", folder / "not.model"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("not.model"), std::string::npos) << outcome.err;
  EXPECT_EQ(synth({}, folder / "m", {"--tokenizer", folder / "none.model"}).status, 1);
  EXPECT_FALSE(std::filesystem::exists(folder / "m")) << "made before the input was checked";
}

TEST_F(Synth, EndsWithOneForWhatItCannotMake) {
  std::vector<std::pair<std::string, std::string>> const cases = {
      {"{\"model_type\": \"mixtral\"}", "model_type"},
      {"{\"model_type\": \"switch_transformers\", \"encoder_sparse_step\": 0}", "no sparse block"},
      {"{\"model_type\": \"switch_transformers\", \"num_experts\": 65535, \"encoder_sparse_step\": 1}",
       "experts, more than"},
      {"{\"model_type\": \"switch_transformers\", \"d_ff\": 1048576, \"d_model\": 1048576}", "free"},
      {"{", "JSON"},
  };
  for (auto const& [config, message] : cases) {
    testing::write_file(folder / "bad.json", config);
    Outcome const outcome = run({"synth", "--config", folder / "bad.json", "--out", folder / "m"});
    EXPECT_EQ(outcome.status, 1) << config;
    EXPECT_NE(outcome.err.find(message), std::string::npos) << outcome.err;
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(folder / "m")) << config;
  }
  EXPECT_EQ(run({"synth", "--config", folder / "none.json", "--out", folder / "m"}).status, 1);
  testing::write_file(folder / "file", "");
  EXPECT_EQ(synth({}, folder / "file").status, 1) << "a file where the folder goes";
  EXPECT_EQ(synth({}, folder / "file/m").status, 1) << "a file where the folder goes";
}

TEST_F(Synth, EndsWithTwoForMisuse) {
  for (std::vector<std::string> const& misuse : std::vector<std::vector<std::string>>{
           {"--dtype", "fp8"}, {"--seed", "-1"}, {"--seed", "x"}, {"--threads", "0"}, {"--unknown"}, {"stray"}}) {
    EXPECT_EQ(synth({}, folder / "m", misuse).status, 2) << misuse.front();
  }
  EXPECT_EQ(run({"synth", "--out", folder / "m"}).status, 2) << "no config";
  EXPECT_EQ(run({"synth", "--help"}).status, 0);
}

/// Use of experts: [MoE layer][expert], tokens.
using Usage = std::vector<std::vector<double>>;

double normalised_entropy(std::vector<double> const& counts) {
  double total = 0, sum = 0;
  for (double const count : counts) total += count;
  for (double const count : counts) {
    if (count > 0) sum -= count / total * std::log(count / total);
  }
  return sum / std::log(static_cast<double>(counts.size()));
}

struct Traffic {
  Usage usage;
  std::vector<double> mean_gate;    // [MoE layer]
  std::vector<double> same_expert;  // [MoE layer]: share of tokens that go where their id mostly goes
  std::vector<double> distinct;     // [MoE layer]: experts of one sequence, on average
  bool is_finite = true;
};

constexpr std::int64_t kSequence = 20;  // ids in a sequence

/// Runs `sequences` sequences.
void run_encoder(std::string const& path, std::size_t sequences, Traffic& out) {
  auto const checkpoint = open_switch_checkpoint(path, ReadPath::pread);
  ASSERT_TRUE(checkpoint) << checkpoint.message();
  HostMemory memory;
  auto const store = ExpertStore::open(*checkpoint->experts, make_host_tier(checkpoint->experts, memory, 1),
                                       {.budget_bytes = std::size_t{1} << 30});
  ASSERT_TRUE(store) << store.message();
  SwitchOptions options;
  options.capacity_rule = CapacityRule::none;
  auto const encoder = SwitchEncoder::load(*checkpoint, **store, options, memory);
  ASSERT_TRUE(encoder) << encoder.message();
  TokenBatch batch;
  for (std::size_t s = 0; s < sequences; ++s) batch.append(random_ids(kSequence, s));
  SwitchEncoder::State state;
  InlinePool pool;
  ASSERT_TRUE((*encoder)->begin(batch, state));
  for (std::uint32_t layer = 0; layer < (*encoder)->moe_layers(); ++layer) {
    ASSERT_TRUE((*encoder)->run_to(layer, state, pool));
    ASSERT_TRUE((*encoder)->route(layer, state, pool));
    auto const routing = (*encoder)->routing(state);
    std::vector<double> counts(checkpoint->config.num_experts);
    std::map<std::int32_t, std::vector<double>> of_id;
    double gates = 0, alike = 0;
    for (std::int64_t t = 0; t < batch.tokens(); ++t) {
      auto const expert = routing.experts(t, 0);
      counts[expert] += 1;
      gates += routing.weights(t, 0);
      auto& row = of_id[batch.ids[static_cast<std::size_t>(t)]];
      row.resize(counts.size());
      row[expert] += 1;
    }
    std::set<std::pair<std::int64_t, std::uint16_t>> of_sequence;
    for (std::int64_t t = 0; t < batch.tokens(); ++t) of_sequence.emplace(t / kSequence, routing.experts(t, 0));
    out.distinct.push_back(static_cast<double>(of_sequence.size()) / static_cast<double>(sequences));
    for (auto const& [id, row] : of_id) alike += *std::ranges::max_element(row);
    out.usage.push_back(counts);
    out.mean_gate.push_back(gates / static_cast<double>(batch.tokens()));
    out.same_expert.push_back(alike / static_cast<double>(batch.tokens()));
    ASSERT_TRUE((*encoder)->run_moe(layer, state, pool, {}));
  }
  ASSERT_TRUE((*encoder)->finish(state, pool));
  auto const hidden = state.hidden();
  for (std::int64_t i = 0; i < hidden.rows * hidden.cols; ++i)
    out.is_finite = out.is_finite && std::isfinite(hidden.data[i]);
}

/// Normalised entropy of expert use in google/switch-base-E, by MoE layer: what `plan_switch_tensors` aims at.
struct Target {
  int experts;
  std::array<double, 6> entropy;
};
constexpr Target kTargets[] = {{8, {0.99, 0.97, 0.97, 0.94, 0.94, 0.92}},
                               {64, {0.94, 0.94, 0.92, 0.89, 0.87, 0.89}},
                               {128, {0.92, 0.92, 0.89, 0.88, 0.88, 0.79}}};

TEST_F(Synth, RoutesAsUnevenlyAsATrainedModel) {
  for (auto const& [experts, target] : kTargets) {
    ASSERT_EQ(synth({.experts = experts, .layers = 12}, folder / "m", {"--seed", "3"}).status, 0);
    Traffic result;
    run_encoder(folder / "m", 400, result);
    ASSERT_EQ(result.usage.size(), target.size());
    EXPECT_TRUE(result.is_finite);
    for (std::size_t layer = 0; layer < target.size(); ++layer) {
      std::string const where = std::to_string(experts) + "_experts_layer_" + std::to_string(layer);
      double const entropy = normalised_entropy(result.usage[layer]);
      EXPECT_NEAR(entropy, target[layer], 0.1) << where;
      EXPECT_GT(result.mean_gate[layer], 0.2) << where;
      EXPECT_GT(result.same_expert[layer], 0.4) << where;
      RecordProperty("entropy_" + where, std::to_string(entropy));
      RecordProperty("distinct_experts_per_sentence_" + where, std::to_string(result.distinct[layer]));
      std::printf("%s: entropy %.3f (%.2f), %.2f experts in a sentence of %d tokens\n", where.c_str(), entropy,
                  target[layer], result.distinct[layer], static_cast<int>(kSequence));
    }
  }
}

TEST(SynthTensors, HaveTheScaleThatTheySay) {
  SynthTensor const tensor{.name = "t",
                           .shape = {64, 512},
                           .fill = SynthTensor::Fill::bell_zero_sum,
                           .deviation = 0.5F,
                           .row_scale = {},
                           .seed = 9};
  std::vector<float> row(512);
  double squares = 0;
  for (std::uint64_t r = 0; r < tensor.rows(); ++r) {
    tensor.write_row(r, Dtype::f32, std::as_writable_bytes(std::span(row)));
    double sum = 0;
    for (float const value : row) {
      sum += value;
      squares += static_cast<double>(value) * value;
      EXPECT_LT(std::fabs(value), 0.5 * 3.6);
    }
    EXPECT_LT(std::fabs(sum), 1e-3) << "row " << r;
  }
  EXPECT_NEAR(std::sqrt(squares / (64 * 512)), 0.5, 0.01);
}

TEST(SynthTensors, DifferByNameAndSeed) {
  EXPECT_NE(seed_of(1, "a"), seed_of(1, "b"));
  EXPECT_NE(seed_of(1, "a"), seed_of(2, "a"));
  auto const config = parse_switch_config(config_json({}), "f");
  ASSERT_TRUE(config) << config.message();
  auto const tensors = plan_switch_tensors(*config, 5);
  std::vector<std::uint64_t> seeds;
  for (auto const& tensor : tensors) seeds.push_back(tensor.seed);
  std::ranges::sort(seeds);
  EXPECT_EQ(std::ranges::adjacent_find(seeds), seeds.end());
}

TEST(SynthWriter, StopsWhenCancelled) {
  testing::TempDir const folder;
  auto const config = parse_switch_config(config_json({}), "f");
  ASSERT_TRUE(config);
  InlinePool pool;
  int asked = 0;
  {
    auto file = OutputFile::create(folder / "m.safetensors");
    ASSERT_TRUE(file);
    auto const tensors = plan_switch_tensors(*config, 5);
    Status const status = write_synth_tensors(tensors, Dtype::bf16, pool,
                                              {.progress = {}, .cancelled = [&] { return ++asked == 3; }}, *file);
    EXPECT_EQ(status.code(), Errc::cancelled);
  }
  EXPECT_TRUE(folder.names().empty());
}

}  // namespace
}  // namespace sida::cli::test
