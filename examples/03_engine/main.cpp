// An engine that decodes token by token, with all experts in memory and with experts offloaded within three budgets.
//   engine [FOLDER]    where to write its model; the system's folder for temporary files by default
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "arms.hpp"

namespace {

using namespace engine;

constexpr int kTokens = 64;
constexpr int kRounds = 3;

/// One way of running the MoE, over all rounds. Rounds are equal but for time.
struct Arm {
  std::string name;
  std::size_t budget_bytes;  // 0: all resident, without sida
  std::vector<double> tokens_per_s = {};
  std::uint64_t hash = 0;
  ExpertCounters counters = {};
  std::size_t peak_bytes = 0;  // of the MoE's memory
};

/// A folder that is removed with everything in it.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(std::filesystem::path const& parent) : path_((parent / "engine_XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) fail(path_ + ": could not be made");
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(TemporaryFolder const&) = delete;
  TemporaryFolder& operator=(TemporaryFolder const&) = delete;
  std::string const& path() const noexcept { return path_; }

 private:
  std::string path_;
};

/// FNV-1a over the bits of all logits.
void add_to_hash(std::uint64_t& hash, std::vector<float> const& logits) {
  for (float const value : logits) hash = (hash ^ std::bit_cast<std::uint32_t>(value)) * 0x100000001B3U;
}

/// A prompt, then greedy decoding. @return the hash of every step's logits.
std::uint64_t decode(Decoder& decoder, Moe& moe) {
  std::int32_t const prompt[] = {72, 101, 108, 108, 111};
  std::uint64_t hash = 0xCBF29CE484222325U;
  std::int32_t token = prompt[0];
  decoder.reset();
  for (std::size_t i = 0; i < kTokens; ++i) {
    if (i < std::size(prompt)) token = prompt[i];
    std::vector<float> const& logits = decoder.step(token, moe);
    add_to_hash(hash, logits);
    token = static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  return hash;
}

/// One round of one arm. Offloading starts with no expert in memory; loading all of them beforehand is not timed.
void run_round(Arm& arm, Config const& config, ModelFile const& file, Threads& threads, Decoder& decoder) {
  Allocator allocator(std::size_t{1} << 30);
  Engine const engine{config, file, allocator, threads};
  auto const moe = arm.budget_bytes == 0 ? resident_moe(engine) : offloaded_moe(engine, arm.budget_bytes);
  auto const begin = std::chrono::steady_clock::now();
  std::uint64_t const hash = decode(decoder, *moe);
  std::chrono::duration<double> const time = std::chrono::steady_clock::now() - begin;
  if (!arm.tokens_per_s.empty() && hash != arm.hash) fail(arm.name + ": two rounds gave different outputs");
  arm.tokens_per_s.push_back(kTokens / time.count());
  arm.hash = hash;
  arm.counters = moe->counters();
  arm.peak_bytes = allocator.peak_bytes();
}

void print(Arm& arm, Config const& config) {
  std::nth_element(arm.tokens_per_s.begin(), arm.tokens_per_s.begin() + kRounds / 2, arm.tokens_per_s.end());
  double const demands = double{kTokens} * config.layers() * config.top_k;
  std::string const hits =
      arm.budget_bytes == 0 ? "-" : std::to_string(static_cast<int>(100.0 * arm.counters.hits / demands + 0.5)) + " %";
  std::printf("%-12s %10.1f %10.1f %8s %10.1f   %016llx\n", arm.name.c_str(), arm.peak_bytes / 1048576.0,
              arm.tokens_per_s[kRounds / 2], hits.c_str(), arm.counters.bytes_read / 1048576.0,
              static_cast<unsigned long long>(arm.hash));
}

int run(std::filesystem::path const& parent) {
  Config const config;
  TemporaryFolder const folder(parent);
  std::string const path = folder.path() + "/model.bin";
  ModelFile::write_random(path, config, 1);
  ModelFile const file(path, config);
  Threads threads(std::clamp(std::thread::hardware_concurrency(), 1U, 4U));
  Allocator dense(std::size_t{1} << 30);
  Decoder decoder(file, dense, threads);

  std::size_t const all = file.expert_bytes() * config.layers() * config.experts();
  std::vector<Arm> arms = {{"resident", 0}, {"sida, 100 %", all}, {"sida, 50 %", all / 2}, {"sida, 25 %", all / 4}};
  for (int round = 0; round < kRounds; ++round) {
    for (Arm& arm : arms) run_round(arm, config, file, threads, decoder);
  }
  std::printf("%-12s %10s %10s %8s %10s   %s\n", "experts", "MoE MiB", "tokens/s", "hits", "read MiB",
              "hash of logits");
  for (Arm& arm : arms) print(arm, config);
  for (Arm const& arm : arms) {
    if (arm.hash != arms[0].hash) fail(arm.name + ": its outputs differ from those of resident experts");
    // Beside the slots, there is one step's scratch.
    if (arm.budget_bytes != 0 && arm.peak_bytes > arm.budget_bytes + 65536) fail(arm.name + ": over its budget");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 ? std::filesystem::path(argv[1]) : std::filesystem::temp_directory_path());
  } catch (std::exception const& error) {
    std::fprintf(stderr, "engine: %s\n", error.what());
    return 1;
  }
}
