#include "cli/run_hash.hpp"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/options.hpp"
#include "sida/detail/try.hpp"
#include "sida/io/safetensors.hpp"

namespace sida::cli {
namespace {

constexpr std::int64_t kJudgedGuesses = 3;  // top-1 and top-3 hit rates are reported

std::vector<std::pair<std::string, SparsemaxRule>> const kSparsemaxRules = {{"exact", SparsemaxRule::exact},
                                                                            {"released", SparsemaxRule::released}};

constexpr std::uint64_t kPercent = 100;  // --likely is written in percent

Status check_model(LstmHash const& hash, std::string const& path, SwitchCheckpoint const& checkpoint) {
  SwitchConfig const& config = checkpoint.config;
  if (hash.d_model() == config.d_model && hash.layers() == config.moe_layers() &&
      hash.experts() == config.num_experts) {
    return {};
  }
  auto const text = [](std::int64_t d_model, std::uint64_t layers, std::uint64_t experts) {
    return std::to_string(layers) + " MoE layers of " + std::to_string(experts) + " experts and d_model " +
           std::to_string(d_model);
  };
  return {Errc::invalid_argument, path + ": this hash function is for " +
                                      text(hash.d_model(), hash.layers(), hash.experts()) + ", but " + checkpoint.path +
                                      " has " + text(config.d_model, config.moe_layers(), config.num_experts)};
}

}  // namespace

std::vector<std::pair<std::string, RunMode>> const& mode_words() {
  static std::vector<std::pair<std::string, RunMode>> const words = {{"exact", RunMode::exact},
                                                                     {"predicted", RunMode::predicted}};
  return words;
}

std::string to_string(RunMode mode) { return mode == RunMode::exact ? "exact" : "predicted"; }

void add_hash_options(CLI::App& app, HashOptions& options) {
  add_path(app, "--predictor", options.predictor,
           "Hash function, a safetensors file; without it, predictor.safetensors in the model's folder");
  app.add_flag("--renormalise", options.renormalise, "Predicted mode: divide a token's weights by their sum");
  add_choice(app, "--sparsemax", options.sparsemax, kSparsemaxRules,
             "The hash function's attention: exact, or as the code released with SiDA-MoE computes it");
}

CLI::Option* add_plan_options(CLI::App& app, HashOptions& options) {
  add_number(app, "--top-k", options.top_k, {1, 65534}, "Predicted mode: experts per token");
  auto const percent = [&options](std::string const& text) {
    auto const value = parse_number(text, 0, kPercent);
    if (!value) throw CLI::ValidationError("--likely", value.error().message());
    options.likely = static_cast<double>(*value) / static_cast<double>(kPercent);
  };
  return app
      .add_option_function<std::string>(
          "--likely", percent,
          "Exact mode with --prefetch hash: load ahead what is used with at least this probability")
      ->type_name("PERCENT")
      ->default_str("50");
}

std::string predictor_path(HashOptions const& options, std::string const& model_path) {
  if (!options.predictor.empty()) return options.predictor;
  return (std::filesystem::path(model_path) / "predictor.safetensors").string();
}

Result<LstmHash> load_hash(HashOptions const& options, RunMode mode, ServeOptions const& serve, ServedModel& served) {
  std::string const& model = served.checkpoint.path;
  std::error_code ignored;
  if (options.predictor.empty() && !std::filesystem::is_directory(model, ignored)) {
    return Error(Errc::not_found, model + ": a container holds no hash function; give one by --predictor FILE");
  }
  std::string const path = predictor_path(options, model);
  LstmHashOptions hash_options;
  hash_options.top_k = static_cast<std::int64_t>(options.top_k);
  hash_options.renormalise = options.renormalise;
  hash_options.sparsemax = options.sparsemax;
  hash_options.isa = serve.isa;
  hash_options.stop = serve.stop;
  if (mode == RunMode::exact) {
    hash_options.top_k = std::min<std::int64_t>(kJudgedGuesses, served.checkpoint.config.num_experts);
    hash_options.renormalise = false;
    hash_options.set = PlannedSet::likely;
    hash_options.likely = options.likely;
  }
  return open_hash(path, serve.read_path, hash_options, served.checkpoint, served.hash_pool, served.memory);
}

Result<LstmHash> open_hash(std::string const& path, ReadPath read_path, LstmHashOptions const& options,
                           SwitchCheckpoint const& checkpoint, ThreadPool& pool, MemoryResource& memory) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    return Error(Errc::invalid_argument, path + ": a folder, where a hash function's safetensors file is needed");
  }
  SIDA_TRY_ASSIGN(auto const tensors, open_safetensors(path, read_path));
  SIDA_TRY_ASSIGN(auto hash, LstmHash::load(*tensors, options, pool, memory));
  SIDA_TRY(check_model(hash, path, checkpoint));
  return hash;
}

std::function<Result<Matrix<float const>>(TokenBatch const&)> make_embedder(ServedModel const& served) {
  auto const rows = std::make_shared<std::vector<float>>();
  return [rows, &encoder = *served.encoder](TokenBatch const& batch) -> Result<Matrix<float const>> {
    std::int64_t const d_model = encoder.config().d_model;
    rows->resize(static_cast<std::size_t>(batch.tokens() * d_model));
    SIDA_TRY(encoder.embed(batch.ids, {rows->data(), batch.tokens(), d_model}));
    return Matrix<float const>(rows->data(), batch.tokens(), d_model);
  };
}

}  // namespace sida::cli
