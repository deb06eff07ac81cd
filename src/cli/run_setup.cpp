#include "cli/run_setup.hpp"

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/small_file.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/detail/try.hpp"
#include "sida/store/fast_tier.hpp"

namespace sida::cli {
namespace {

constexpr unsigned kIoThreads = 4;  // reads under way at once; enough to keep a disk's queue filled
constexpr std::uint64_t kMaxThreads = 1024;

std::vector<std::pair<std::string, CapacityRule>> const kCapacities = {
    {"none", CapacityRule::none}, {"hf", CapacityRule::hf}, {"hf-4.32", CapacityRule::hf_4_32}};
std::vector<std::pair<std::string, Device>> const kDevices = {{"cpu", Device::cpu}, {"cuda", Device::cuda}};
std::vector<std::pair<std::string, ReadPath>> const kReadPaths = {{"pread", ReadPath::pread}, {"mmap", ReadPath::mmap}};

template <class T>
std::string_view word_of(std::vector<std::pair<std::string, T>> const& words, T value) {
  auto const found = std::find_if(words.begin(), words.end(), [&](auto const& word) { return word.second == value; });
  return found->first;
}

std::vector<std::pair<std::string, PolicyKind>> policy_words() {
  std::vector<std::pair<std::string, PolicyKind>> words;
  for (auto const kind : {PolicyKind::fifo, PolicyKind::lru, PolicyKind::lfu, PolicyKind::lfru, PolicyKind::next_use}) {
    words.emplace_back(sida::to_string(kind), kind);
  }
  return words;
}

std::vector<std::pair<std::string, CpuIsa>> isa_words() {
  std::vector<std::pair<std::string, CpuIsa>> words;
  for (CpuIsa const isa : {CpuIsa::portable, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::avx512_bf16, CpuIsa::amx_bf16}) {
    words.emplace_back(sida::to_string(isa), isa);
  }
  return words;
}

}  // namespace

std::uint64_t ServeOptions::default_threads() noexcept {
  return std::clamp<std::uint64_t>(std::thread::hardware_concurrency(), 1, kMaxThreads);
}

std::string_view to_string(CapacityRule rule) noexcept { return word_of(kCapacities, rule); }
std::string_view to_string(ReadPath path) noexcept { return word_of(kReadPaths, path); }
std::string_view to_string(Device device) noexcept { return word_of(kDevices, device); }

CLI::Option* add_prefetch_depth(CLI::App& app, std::uint64_t& value) {
  return add_number(app, "--prefetch-depth", value, {1, 1024}, "Loads ahead of need under way at once");
}

void add_serve_options(CLI::App& app, ServeOptions& options) {
  add_path(app, "--model", options.model, "Checkpoint folder in Hugging Face's form, or packed container FILE.sida")
      ->type_name("PATH")
      ->required();
  add_choice(app, "--device", options.device, kDevices, "What computes: the CPU, or the first GPU");
  add_budget(app, "--budget", options.budget,
             "Most bytes of experts in host memory, resident or on their way: a share of all experts (20%), a size "
             "(512MiB, 2GB) or a number of bytes");
  add_budget(app, "--device-budget", options.device_budget, "With --device cuda, the same for GPU memory");
  app.add_flag("--preload", options.preloads,
               "With --device cuda, fill host memory with experts before the first batch, as many as its budget holds");
  add_choice(app, "--policy", options.policy, policy_words(), "Which expert leaves when another needs its slot");
  add_prefetch_depth(app, options.prefetch_depth);
  add_number(app, "--threads", options.threads, {1, kMaxThreads}, "Compute threads");
  add_choice(app, "--capacity", options.capacity, kCapacities,
             "What happens to tokens beyond an expert's capacity, as a version of transformers does it");
  add_choice(app, "--read-path", options.read_path, kReadPaths, "How experts are read from disk");
  add_choice(app, "--isa", options.isa, isa_words(),
             "Instruction set of the CPU kernels, by default the best that this processor runs");
}

void check_isa(CpuIsa isa, std::span<CpuIsa const> runnable) {
  if (std::find(runnable.begin(), runnable.end(), isa) != runnable.end()) return;
  std::string words;
  for (CpuIsa const other : runnable) words += (words.empty() ? "" : ", ") + std::string(sida::to_string(other));
  throw CLI::ValidationError("--isa",
                             "this processor does not run " + std::string(sida::to_string(isa)) + ", but: " + words);
}

void check_serve_options(ServeOptions const& options) {
  check_isa(options.isa, runnable_cpu_isas());
  if (options.device == Device::cuda) return;
  if (options.device_budget) throw CLI::ValidationError("--device-budget", "this is for --device cuda");
  if (options.preloads) throw CLI::ValidationError("--preload", "this is for --device cuda");
}

Result<std::unique_ptr<ServedModel>> ServedModel::open(ServeOptions const& options, SourceDecorator const& decorate) {
  auto served = std::make_unique<ServedModel>();
  SIDA_TRY_ASSIGN(served->checkpoint, open_switch_checkpoint(options.model, options.read_path));
  if (decorate) served->checkpoint.experts = decorate(std::move(served->checkpoint.experts));
  SwitchCheckpoint const& checkpoint = served->checkpoint;
  if (options.experts_per_token > checkpoint.config.num_experts) {
    return Error(Errc::invalid_argument, "--top-k: " + std::to_string(options.experts_per_token) +
                                             " experts per token, but the layers of " + checkpoint.path +
                                             " have no more than " + std::to_string(checkpoint.config.num_experts));
  }
  SIDA_TRY_ASSIGN(served->tokenizer, open_tokenizer(checkpoint));

  if (options.device == Device::cuda) {
    SIDA_TRY_ASSIGN(served->device, make_device_serving());
  }
  SIDA_TRY(served->open_stores(options));
  SIDA_TRY(served->load_encoder(options));
  if (served->host_store && options.preloads) {
    std::stop_callback const on_stop(options.stop, [&] { served->host_store->cancel(); });
    SIDA_TRY(served->preload());
  }
  if (options.threads == 1) {
    served->pool = std::make_unique<InlinePool>();
  } else {
    served->pool = std::make_unique<WorkerPool>(options.threads);
  }
  return served;
}

Status ServedModel::open_stores(ServeOptions const& options) {
  std::uint64_t const slot_bytes = slot_bytes_for(checkpoint.layout.size_bytes);
  std::uint64_t const experts = checkpoint.expert_count();
  auto const of_budget = [&](Budget const& budget) {
    StoreOptions store_options;
    budget_bytes = budget.bytes(experts, slot_bytes);
    // More slots than experts would only be address space.
    store_options.budget_bytes = std::min(budget_bytes, experts * slot_bytes);
    store_options.policy = options.policy;
    store_options.prefetch_depth = static_cast<std::uint32_t>(options.prefetch_depth);
    return store_options;
  };
  MemoryResource& host_memory = device ? device->pinned() : memory;
  SIDA_TRY_ASSIGN(auto host,
                  ExpertStore::open(*checkpoint.experts, make_host_tier(checkpoint.experts, host_memory, kIoThreads),
                                    of_budget(options.budget)));
  if (!device) {
    store = std::move(host);
    return {};
  }
  host_store = std::move(host);
  SIDA_TRY_ASSIGN(
      store, device->open_store(*checkpoint.experts, *host_store, of_budget(options.device_budget.value_or(Budget()))));
  return {};
}

Status ServedModel::preload() {
  std::vector<ExpertId> experts;
  for (std::uint32_t layer = 0; layer < checkpoint.config.moe_layers(); ++layer) {
    for (std::uint32_t expert = 0; expert < checkpoint.config.num_experts; ++expert) experts.push_back({layer, expert});
  }
  experts.resize(std::min<std::size_t>(experts.size(), host_store->slots()));
  SIDA_TRY_ASSIGN(auto event, host_store->begin_event(experts));
  while (!event.done()) {
    SIDA_TRY_ASSIGN(Wave const wave, event.next_wave(StreamRef::host()));
    static_cast<void>(wave);
  }
  return {};
}

Status ServedModel::load_encoder(ServeOptions const& options) {
  SwitchOptions switch_options;
  switch_options.routing = options.routing;
  switch_options.experts_per_token = static_cast<std::int64_t>(options.experts_per_token);
  switch_options.capacity_rule = options.capacity;
  switch_options.isa = options.isa;
  switch_options.outputs_hidden = options.outputs_hidden;
  switch_options.stop = options.stop;
  if (device) {
    SIDA_TRY_ASSIGN(encoder, device->load(checkpoint, *store, switch_options, memory));
  } else {
    SIDA_TRY_ASSIGN(encoder, SwitchEncoder::load(checkpoint, *store, switch_options, memory));
  }
  return {};
}

Status require_head(SwitchCheckpoint const& checkpoint) {
  if (checkpoint.has_head) return {};
  return {Errc::not_found, checkpoint.path +
                               ": there is no classification head (classification_head.dense.weight and .bias, "
                               "classification_head.out_proj.weight and .bias); \"sida encode\" needs none"};
}

}  // namespace sida::cli
