// Copies of experts under the layer's own compute, at a fifth of the memory, against the link: 64 copies of the same
// size, one after the other, in this process.
#include <chrono>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bench/cuda/base_experts.hpp"
#include "bench/cuda/device_timer.hpp"
#include "bench/json_line.hpp"

namespace {

using namespace sida;
using bench::BaseExperts;
using bench::must;
using bench::take;

constexpr std::uint32_t kLayers = 3;
constexpr std::uint32_t kExperts = 128;
constexpr int kBatches = 40;

double link_rate(cudaStream_t stream) {
  constexpr int kCopies = 64;
  std::size_t const record = slot_bytes_for(BaseExperts::layout().size_bytes);
  cuda::PinnedMemory pinned;
  cuda::DeviceMemory device;
  Buffer host = take(Buffer::allocate(pinned, record * kCopies));
  Buffer there = take(Buffer::allocate(device, record * kCopies, 256));
  double const seconds = bench::device_seconds(stream, 7, [&](int) {
    for (std::size_t i = 0; i < kCopies; ++i) {
      must(cudaMemcpyAsync(there.bytes().data() + i * record, host.bytes().data() + i * record, record,
                           cudaMemcpyHostToDevice, stream));
    }
  });
  return static_cast<double>(record) * kCopies / seconds;
}

/// A batch's experts: some two dozen of each layer, the frequent ones more often (Zipf), one token each or two.
std::vector<HostRouting> random_batch(std::mt19937& random) {
  std::vector<double> weights;
  for (std::uint32_t e = 0; e < kExperts; ++e) weights.push_back(1.0 / std::pow(e + 1.0, 0.6));
  std::discrete_distribution<std::uint32_t> zipf(weights.begin(), weights.end());
  std::vector<HostRouting> layers(kLayers);
  for (std::uint32_t l = 0; l < kLayers; ++l) {
    layers[l].resize(30, 1);
    for (std::int64_t t = 0; t < 30; ++t) {
      layers[l].view().experts(t, 0) = static_cast<std::uint16_t>((zipf(random) * 37 + l * 11) % kExperts);
      layers[l].view().weights(t, 0) = 1.0F;
    }
  }
  return layers;
}

std::vector<std::vector<ExpertId>> plan_of(std::vector<HostRouting>& batch) {
  std::vector<std::vector<ExpertId>> events(kLayers);
  for (std::uint32_t l = 0; l < kLayers; ++l) {
    for (std::int64_t t = 0; t < 30; ++t) events[l].push_back({l, batch[l].view().experts(t, 0)});
  }
  return events;
}

void run(std::string const& name, PolicyKind policy, std::size_t lookahead, double link) {
  bench::BaseLayer layer(std::vector<std::uint32_t>(kLayers, kExperts), kLayers * kExperts / 5, policy);
  layer.reserve(64);
  std::mt19937 random(7);
  std::vector<std::vector<HostRouting>> batches;
  for (int i = 0; i < kBatches; ++i) batches.push_back(random_batch(random));
  std::vector<PlanId> plans;
  auto const began = std::chrono::steady_clock::now();
  for (std::size_t b = 0; b < batches.size(); ++b) {
    while (lookahead > 0 && plans.size() < std::min(batches.size(), b + 1 + lookahead)) {
      plans.push_back(take(layer.store().submit_plan(plan_of(batches[plans.size()]))));
    }
    for (std::uint32_t l = 0; l < kLayers; ++l) {
      layer.apply(l, batches[b][l], lookahead > 0 ? PlanPosition{plans[b], l} : PlanPosition{});
    }
    must(cudaStreamSynchronize(layer.stream()));  // a batch's answer
  }
  double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  auto const stats = layer.store().stats();
  bench::JsonLine("copies")
      .add("arm", name)
      .add("seconds", seconds)
      .add("bytes", static_cast<double>(stats.bytes_loaded))
      .add("hits", static_cast<double>(stats.hits))
      .add("misses", static_cast<double>(stats.misses))
      .add("bytes_per_s", static_cast<double>(stats.bytes_loaded) / seconds)
      .add("of_link", static_cast<double>(stats.bytes_loaded) / seconds / link);
}

}  // namespace

int main() {
  must(cuda::require_device());
  auto const stream = take(cuda::Stream::create());
  double const link = link_rate(stream.get());
  bench::JsonLine("link").add("h2d_bytes_per_s", link);
  run("lfru, no plan", PolicyKind::lfru, 0, link);
  run("next-use, look-ahead 8", PolicyKind::next_use, 8, link);
  run("lfru, no plan", PolicyKind::lfru, 0, link);
  run("next-use, look-ahead 8", PolicyKind::next_use, 8, link);
}
