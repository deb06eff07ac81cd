#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "cli/run_setup.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/result.hpp"
#include "sida/predict/lstm_hash.hpp"
#include "sida/route/token_batch.hpp"
#include "sida/runtime/batch_steps.hpp"

namespace CLI {
class App;
class Option;
}

namespace sida::cli {

/// Which hash function, and how it is read.
struct HashOptions {
  std::string predictor;    ///< a safetensors file; empty: predictor.safetensors in the model's folder
  std::uint64_t top_k = 1;  ///< experts per token in predicted mode
  bool renormalise = false;
  SparsemaxRule sparsemax = SparsemaxRule::exact;
  double likely = 0.5;  ///< in exact mode: an expert is loaded ahead when it is used with this probability
};

/// Words of --mode, and back.
std::vector<std::pair<std::string, RunMode>> const& mode_words();
std::string to_string(RunMode mode);

/// Declares --predictor, --renormalise and --sparsemax.
void add_hash_options(CLI::App& app, HashOptions& options);
/// Declares --top-k and --likely: how much of what the hash function says goes into a plan. @return --likely.
CLI::Option* add_plan_options(CLI::App& app, HashOptions& options);

/// The file that `options` mean for the model at `model_path`.
std::string predictor_path(HashOptions const& options, std::string const& model_path);

/// The hash function of `served`'s model. In predicted mode its plans name top-k experts per token and load those
/// ahead; in exact mode they name three, to be judged by, and load ahead what some token likely takes.
/// @return not_found, corrupt, … as LstmHash::load; invalid_argument, naming both, when it belongs to another model.
Result<LstmHash> load_hash(HashOptions const& options, RunMode mode, ServeOptions const& serve, ServedModel& served);

/// The hash function in `path`, if it is one for the model of `checkpoint`. @return as `load_hash`.
Result<LstmHash> open_hash(std::string const& path, ReadPath read_path, LstmHashOptions const& options,
                           SwitchCheckpoint const& checkpoint, ThreadPool& pool, MemoryResource& memory);

/// Looks up what the hash function reads, for PipelineOptions::embed. `served` must outlive it.
std::function<Result<Matrix<float const>>(TokenBatch const&)> make_embedder(ServedModel const& served);

}  // namespace sida::cli
