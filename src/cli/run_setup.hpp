#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>

#include "cli/device_serving.hpp"
#include "cli/options.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/io/expert_source.hpp"
#include "sida/io/file.hpp"
#include "sida/kernels/cpu.hpp"
#include "sida/model/switch_checkpoint.hpp"
#include "sida/model/switch_encoder.hpp"
#include "sida/model/tokenizer.hpp"
#include "sida/policy/eviction_policy.hpp"
#include "sida/route/router.hpp"
#include "sida/store/expert_store.hpp"

namespace CLI {
class App;
class Option;
}

namespace sida::cli {

/// `--prefetch-depth N`.
CLI::Option* add_prefetch_depth(CLI::App& app, std::uint64_t& value);

/// What computes.
enum class Device : std::uint8_t { cpu, cuda };

/// Which model, and how it is served.
struct ServeOptions {
  std::string model;
  Device device = Device::cpu;
  Budget budget;                        ///< of host memory
  std::optional<Budget> device_budget;  ///< of GPU memory; none: all experts
  bool preloads = false;                ///< host memory is filled with experts beforehand
  PolicyKind policy = PolicyKind::lfru;
  std::uint64_t threads = default_threads();
  CapacityRule capacity = CapacityRule::hf;
  ReadPath read_path = ReadPath::pread;
  CpuIsa isa = best_cpu_isa();
  std::uint64_t prefetch_depth = StoreOptions{}.prefetch_depth;
  // Not options of their own: what the command's mode asks for.
  SwitchRouting routing = SwitchRouting::router;
  std::uint64_t experts_per_token = 1;
  bool outputs_hidden = false;
  std::stop_token stop = {};  ///< ends what takes long within a step

  /// Processors that this process may use.
  static std::uint64_t default_threads() noexcept;
};

/// Declares --model, --device, --budget, --device-budget, --preload, --policy, --prefetch-depth, --threads, --capacity,
/// --read-path and --isa.
void add_serve_options(CLI::App& app, ServeOptions& options);
/// Throws CLI::ValidationError where `isa` is not `runnable`.
void check_isa(CpuIsa isa, std::span<CpuIsa const> runnable);
/// What one of them says of another, or this machine of one. Throws CLI::ValidationError.
void check_serve_options(ServeOptions const& options);

std::string_view to_string(CapacityRule rule) noexcept;
std::string_view to_string(ReadPath path) noexcept;
std::string_view to_string(Device device) noexcept;

/// Puts something in front of a checkpoint's experts (to slow reads, to watch them): gets the source, returns the one
/// that the store reads. May be empty.
using SourceDecorator = std::function<std::shared_ptr<ExpertSource const>(std::shared_ptr<ExpertSource const> experts)>;

/// A model that is ready to answer: dense weights in memory, experts in a store under its budget. Everything that a
/// command needs to run batches; stays where it is made, since its parts refer to one another.
struct ServedModel {
  HostMemory memory;
  SwitchCheckpoint checkpoint;
  std::optional<Tokenizer> tokenizer;       ///< if the checkpoint has one
  std::uint64_t budget_bytes = 0;           ///< of `store`, as asked for
  std::unique_ptr<DeviceServing> device;    ///< null on a CPU
  std::unique_ptr<ExpertStore> host_store;  ///< null on a CPU: what a GPU's store is filled from
  std::unique_ptr<ExpertStore> store;       ///< of the memory that computes
  std::unique_ptr<SwitchEncoder> encoder;
  std::unique_ptr<ThreadPool> pool;
  InlinePool hash_pool;  ///< the hash-building thread computes on itself

  /// @return what the checkpoint, the store (over_budget among others) or the encoder return.
  static Result<std::unique_ptr<ServedModel>> open(ServeOptions const& options, SourceDecorator const& decorate = {});

  Status open_stores(ServeOptions const& options);
  Status load_encoder(ServeOptions const& options);
  /// Reads experts into the host store, in their order, as many as it holds.
  Status preload();
  /// Wakes whoever waits for experts.
  void cancel() noexcept {
    store->cancel();
    if (host_store) host_store->cancel();
  }
  /// Slot bytes of all experts.
  std::uint64_t expert_bytes_total() const noexcept { return checkpoint.expert_count() * store->slot_bytes(); }
};

/// @return not_found for a model that has no classification head.
Status require_head(SwitchCheckpoint const& checkpoint);

}  // namespace sida::cli
