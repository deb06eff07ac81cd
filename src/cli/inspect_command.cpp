#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "cli/command.hpp"
#include "cli/options.hpp"
#include "cli/progress.hpp"
#include "cli/report.hpp"
#include "cli/run_hash.hpp"
#include "core/shape_text.hpp"
#include "io/packed_format.hpp"
#include "io/staging_pool.hpp"
#include "sida/core/memory.hpp"
#include "sida/detail/try.hpp"
#include "sida/model/switch_checkpoint.hpp"

namespace sida::cli {
namespace {

constexpr std::array<std::string_view, 6> kShares = {"5%", "10%", "20%", "25%", "50%", "100%"};

struct BudgetRow {
  std::string budget;  ///< as `--budget` takes it, or "1 slot"
  std::uint64_t slots = 0;
  std::uint64_t bytes = 0;
};

struct NamedBytes {
  std::string name;
  std::uint64_t bytes = 0;
  std::string what;
};

/// The model's hash function, or why there is none to be had.
struct PredictorSummary {
  std::string path;
  std::string problem;  ///< why it can't be used; empty where it can
  std::int64_t hidden = 0;
  std::uint64_t weight_bytes = 0;
};

/// All that `inspect` says, before it is put into words or JSON.
struct Summary {
  std::optional<PredictorSummary> predictor;
  std::string format;  ///< "safetensors" or "sida"
  std::uint64_t slot_bytes = 0;
  std::uint64_t total_slot_bytes = 0;
  std::vector<NamedBytes> overhead;
  std::vector<BudgetRow> budgets;
};

std::vector<BudgetRow> list_budgets(std::uint64_t experts, std::uint64_t slot_bytes) {
  std::vector<BudgetRow> rows = {{"1 slot", 1, slot_bytes}};
  for (auto const share : kShares) {
    auto const budget = Budget::parse(share);
    if (!budget) continue;
    std::uint64_t const bytes = budget->bytes(experts, slot_bytes);
    rows.push_back({std::string(share), bytes / slot_bytes, bytes});
  }
  return rows;
}

/// Memory beside the budget whose size the model decides.
std::vector<NamedBytes> list_overhead(SwitchCheckpoint const& checkpoint) {
  auto const& config = checkpoint.config;
  std::uint64_t index = checkpoint.expert_count() * (sizeof(ExpertId) + sizeof(std::uint64_t));
  for (auto const& tensor : checkpoint.dense->tensors()) {
    index += sizeof(TensorInfo) + tensor.name.size() + tensor.shape.size() * sizeof(std::int64_t);
  }
  // States, norms, queries, keys, values, attention's and the feed-forward network's outputs, router logits.
  auto const token =
      static_cast<std::uint64_t>(4 * config.d_model + 4 * config.inner_dim() + 2 * config.d_ff) + config.num_experts;
  constexpr std::uint64_t kStaging = io_detail::StagingPool::kChunks * io_detail::StagingPool::kChunkBytes;
  return {
      {"dense_weights", checkpoint.dense_bytes(), "embedding, attention, dense blocks, routers, head"},
      {"tokenizer", checkpoint.tokenizer.size(), "the SentencePiece model; its tables take a few times as much"},
      {"index", index, "names, shapes and places of tensors and experts, about"},
      {"activations_per_token", token * sizeof(float), "of the batch at hand, about; attention adds heads x length"},
      {"staging", kStaging, "at most; unaligned reads pass through it"},
  };
}

/// The hash function that is asked for, which has to be right; or the one in the model's folder, if there is one.
Result<std::optional<PredictorSummary>> find_predictor(std::string const& asked_for,
                                                       SwitchCheckpoint const& checkpoint) {
  HashOptions options;
  options.predictor = asked_for;
  PredictorSummary predictor;
  predictor.path = predictor_path(options, checkpoint.path);
  std::error_code ignored;
  if (asked_for.empty() && !std::filesystem::exists(predictor.path, ignored)) return std::optional<PredictorSummary>();
  InlinePool pool;
  HostMemory memory;
  auto const hash = open_hash(predictor.path, ReadPath::pread, {}, checkpoint, pool, memory);
  if (!hash) {
    if (!asked_for.empty()) return hash.error();
    predictor.problem = hash.error().message();
  } else {
    predictor.hidden = hash->hidden();
    predictor.weight_bytes = hash->weight_bytes();
  }
  return std::optional(std::move(predictor));
}

std::string predictor_text(std::optional<PredictorSummary> const& predictor) {
  if (!predictor) return "none";
  if (!predictor->problem.empty()) return "cannot be used: " + predictor->problem;
  return predictor->path + ": hash function, hidden size " + std::to_string(predictor->hidden) + ", " +
         format_bytes(predictor->weight_bytes) + " in memory";
}

Summary summarise(SwitchCheckpoint const& checkpoint) {
  Summary summary;
  summary.format = std::filesystem::is_directory(checkpoint.path) ? "safetensors" : "sida";
  summary.slot_bytes = slot_bytes_for(checkpoint.layout.size_bytes);
  summary.total_slot_bytes = checkpoint.expert_count() * summary.slot_bytes;
  summary.overhead = list_overhead(checkpoint);
  summary.budgets = list_budgets(checkpoint.expert_count(), summary.slot_bytes);
  return summary;
}

std::string bytes_text(std::uint64_t bytes) { return std::to_string(bytes) + " (" + format_bytes(bytes) + ")"; }

std::string text_report(SwitchCheckpoint const& checkpoint, Summary const& summary) {
  auto const& config = checkpoint.config;
  auto const& shape = checkpoint.layout.shape;
  std::string format = summary.format;
  if (format == "sida") format += " container, version " + std::to_string(io_detail::kPackedVersion);
  Table model;
  model.row("model", checkpoint.path);
  model.row("format", format);
  model.row("encoder", std::to_string(config.num_layers) + " blocks, d_model " + std::to_string(config.d_model) +
                           ", d_ff " + std::to_string(config.d_ff) + ", " + std::to_string(config.num_heads) +
                           " heads of " + std::to_string(config.d_kv) + ", vocabulary " +
                           std::to_string(config.vocab_size));
  model.row("head", checkpoint.has_head ? std::to_string(config.num_labels) + " labels" : "none");
  model.row("tokenizer", checkpoint.tokenizer.empty() ? "none" : format_bytes(checkpoint.tokenizer.size()));
  model.row("predictor", predictor_text(summary.predictor));
  model.row("tensors", std::to_string(checkpoint.dense_names.size()) + " dense, " +
                           std::to_string(2 * checkpoint.expert_count()) + " of experts");
  model.row("experts", std::to_string(checkpoint.expert_count()) + ": " + std::to_string(config.moe_layers()) +
                           " MoE layers of " + std::to_string(config.num_experts));
  model.row("expert", std::string(to_string(shape.kind)) + ", " + std::string(to_string(shape.dtype)) + ", record " +
                          bytes_text(checkpoint.layout.size_bytes) + ", slot " + bytes_text(summary.slot_bytes));
  model.row("all experts", bytes_text(summary.total_slot_bytes) + " in slots");
  std::string text = model.text() + "\nBeside the budget, in memory:\n";
  Table overhead;
  for (auto const& part : summary.overhead) overhead.row("  " + part.name, bytes_text(part.bytes) + "  " + part.what);
  text += overhead.text() + "\nBudgets:\n";
  Table budgets;
  for (auto const& row : summary.budgets) {
    budgets.row("  " + row.budget,
                std::to_string(row.slots) + (row.slots == 1 ? " expert, " : " experts, ") + bytes_text(row.bytes));
  }
  return text + budgets.text();
}

std::string tensor_list(SwitchCheckpoint const& checkpoint) {
  Table table;
  for (auto const& name : checkpoint.dense_names) {
    auto const* const tensor = checkpoint.dense->find(name);
    if (tensor == nullptr) continue;
    table.row("  " + name, tensor->dtype_name + " " + sida::detail::shape_text(tensor->shape) + ", " +
                               std::to_string(tensor->size_bytes));
  }
  return "\nDense tensors:\n" + table.text();
}

std::string json_report(SwitchCheckpoint const& checkpoint, Summary const& summary, bool is_verified) {
  nlohmann::ordered_json root;
  auto const& config = checkpoint.config;
  root["model"] = checkpoint.path;
  root["format"] = summary.format;
  if (summary.format == "sida") root["format_version"] = io_detail::kPackedVersion;
  root["verified"] = is_verified;
  root["dtype"] = to_string(checkpoint.layout.shape.dtype);
  root["moe_layers"] = config.moe_layers();
  root["experts_per_layer"] = config.num_experts;
  root["experts"] = checkpoint.expert_count();
  root["record_bytes"] = checkpoint.layout.size_bytes;
  root["slot_bytes"] = summary.slot_bytes;
  root["expert_bytes_total"] = summary.total_slot_bytes;
  root["dense_bytes"] = checkpoint.dense_bytes();
  root["has_head"] = checkpoint.has_head;
  root["num_labels"] = config.num_labels;
  root["tokenizer_bytes"] = checkpoint.tokenizer.size();
  root["predictor"] = nullptr;
  if (auto const& predictor = summary.predictor; predictor && predictor->problem.empty()) {
    root["predictor"] = {
        {"path", predictor->path}, {"hidden", predictor->hidden}, {"weight_bytes", predictor->weight_bytes}};
  } else if (predictor) {
    root["predictor"] = {{"path", predictor->path}, {"problem", predictor->problem}};
  }
  root["overhead_bytes"] = nlohmann::ordered_json::object();
  for (auto const& part : summary.overhead) root["overhead_bytes"][part.name] = part.bytes;
  root["budgets"] = nlohmann::ordered_json::array();
  for (auto const& row : summary.budgets) {
    root["budgets"].push_back({{"budget", row.budget}, {"slots", row.slots}, {"bytes", row.bytes}});
  }
  root["tensors"] = nlohmann::ordered_json::array();
  for (auto const& name : checkpoint.dense_names) {
    auto const* const tensor = checkpoint.dense->find(name);
    if (tensor == nullptr) continue;
    root["tensors"].push_back(
        {{"name", name}, {"dtype", tensor->dtype_name}, {"shape", tensor->shape}, {"bytes", tensor->size_bytes}});
  }
  return root.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

/// Reads every dense tensor and every expert once, so that what can be wrong with them comes to light.
class Verifier {
 public:
  Verifier(SwitchCheckpoint const& checkpoint, Session& session)
      : checkpoint_(checkpoint),
        session_(session),
        progress_(session.has_terminal(), "verifying", "bytes"),
        total_(checkpoint.dense_bytes() + checkpoint.expert_count() * checkpoint.layout.size_bytes) {}

  Status run() {
    SIDA_TRY_ASSIGN(buffer_, Buffer::allocate(memory_, slot_bytes_for(checkpoint_.layout.size_bytes), kRecordAlignment,
                                              "one expert"));
    for (auto const& name : checkpoint_.dense_names) SIDA_TRY(read_dense(name));
    auto const counts = checkpoint_.experts->experts_per_layer();
    for (std::uint32_t layer = 0; layer < counts.size(); ++layer) {
      for (std::uint32_t expert = 0; expert < counts[layer]; ++expert) {
        SIDA_TRY(checkpoint_.experts->read({layer, expert}, buffer_.bytes()));
        SIDA_TRY(count(checkpoint_.layout.size_bytes));
      }
    }
    return {};
  }

 private:
  Status read_dense(std::string const& name) {
    constexpr std::uint64_t kPart = io_detail::kPackedChunkBytes;  // whole chunks, so that none is read twice
    auto const* const tensor = checkpoint_.dense->find(name);
    if (tensor == nullptr) return {Errc::not_found, checkpoint_.path + ": no tensor '" + name + "'"};
    std::vector<std::byte> part;
    for (std::uint64_t offset = 0; offset < tensor->size_bytes; offset += part.size()) {
      part.resize(std::min(kPart, tensor->size_bytes - offset));
      SIDA_TRY(checkpoint_.dense->read(name, offset, part));
      SIDA_TRY(count(part.size()));
    }
    return {};
  }

  Status count(std::uint64_t bytes) {
    if (session_.stopped()) return Session::interrupted();
    done_ += bytes;
    progress_.update(done_, total_);
    return {};
  }

  SwitchCheckpoint const& checkpoint_;
  Session& session_;
  Progress progress_;
  HostMemory memory_;
  Buffer buffer_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
};

class InspectCommand final : public Command {
 public:
  std::string name() const override { return "inspect"; }
  std::string summary() const override { return "Say what a model holds, and which budget holds how many experts"; }
  std::string manual() const override {
    return R"(Prints the model's shape, its experts and bytes, the memory that it takes beside
the budget, and for some budgets how many experts they hold. Budgets count
slots: an expert's record rounded up to 4 KiB; N % is floor(N/100 x experts)
slots, at least one. Only headers are read, and the hash function if there is
one, unless --verify reads all; a container's parts are compared with their
checksums, a folder has none.

Exit status: 0; 1 for data and I/O; 2 for malformed values and unknown options;
130 when interrupted.)";
  }
  void add_options(CLI::App& app) override {
    add_path(app, "MODEL", model_, "Folder in Hugging Face's form, or FILE.sida")->required()->type_name("");
    add_path(app, "--predictor", predictor_,
             "Hash function to look at; without it, predictor.safetensors in the model's folder");
    app.add_flag("--json", json_, "Print one JSON object, dense tensors included");
    app.add_flag("--tensors", tensors_, "List the dense tensors too");
    app.add_flag("--verify", verify_, "Read every tensor and every expert");
  }
  Status run(Session& session) override {
    SIDA_TRY_ASSIGN(auto const checkpoint, open_switch_checkpoint(model_, ReadPath::pread));
    if (verify_) SIDA_TRY(Verifier(checkpoint, session).run());
    Summary summary = summarise(checkpoint);
    SIDA_TRY_ASSIGN(summary.predictor, find_predictor(predictor_, checkpoint));
    std::string text;
    if (json_) {
      text = json_report(checkpoint, summary, verify_);
    } else {
      text = text_report(checkpoint, summary);
      if (tensors_) text += tensor_list(checkpoint);
      if (verify_) text += summary.format == "sida" ? "\nAll checksums match.\n" : "\nEverything could be read.\n";
    }
    return print(text);
  }

 private:
  std::string model_;
  std::string predictor_;
  bool json_ = false;
  bool tensors_ = false;
  bool verify_ = false;
};

}  // namespace

std::unique_ptr<Command> make_inspect_command() { return std::make_unique<InspectCommand>(); }

}  // namespace sida::cli
