// The MoE layer on a device, all experts resident, against its roof: max(bytes / read rate, FLOPs / dense rate), both
// measured in this process.
#include <cstdint>
#include <vector>

#include "bench/cuda/base_experts.hpp"
#include "bench/cuda/device_timer.hpp"
#include "bench/json_line.hpp"

namespace {

using namespace sida;
using bench::BaseExperts;
using bench::must;
using bench::take;

constexpr std::uint32_t kExperts = 128;

struct Roof {
  double read_bytes_per_s = 0;
  double flops = 0;
};

Roof measure_roof(cudaStream_t stream) {
  cuda::DeviceMemory device;
  auto const blas = take(cuda::BlasHandle::create());
  Buffer workspace = take(Buffer::allocate(device, cuda::Gemm::kWorkspaceBytes, 256));
  cuda::Gemm gemm(blas.get(), workspace.bytes());
  constexpr std::int64_t kSize = 8192;
  constexpr std::size_t kBytes = kSize * kSize * 2;
  Buffer big = take(Buffer::allocate(device, kBytes * 8, 256));
  Buffer y = take(Buffer::allocate(device, kBytes * 2, 256));
  bench::fill_random_numbers(big.bytes(), Dtype::bf16, stream);
  Roof roof;
  roof.read_bytes_per_s = static_cast<double>(big.size_bytes()) / bench::device_seconds(stream, 9, [&](int) {
                            must(bench::read_all(big.bytes(), reinterpret_cast<unsigned*>(y.bytes().data()), stream));
                          });
  roof.flops = 2.0 * kSize * kSize * kSize / bench::device_seconds(stream, 5, [&](int) {
                 must(gemm.run(stream, {.x = big.bytes().data(),
                                        .x_stride = kSize,
                                        .w = big.bytes().data() + kBytes,
                                        .y = reinterpret_cast<float*>(y.bytes().data()),
                                        .y_stride = kSize,
                                        .m = kSize,
                                        .n = kSize,
                                        .k = kSize,
                                        .dtype = Dtype::bf16}));
               });
  return roof;
}

/// `each` tokens for each of `active` experts from `first` on, shuffled as tokens are.
HostRouting routing_of(std::uint32_t first, std::uint32_t active, std::int64_t each) {
  HostRouting routing;
  std::int64_t const tokens = active * each;
  routing.resize(tokens, 1);
  for (std::int64_t t = 0; t < tokens; ++t) {
    routing.view().experts(t, 0) = static_cast<std::uint16_t>((first + t % active) % kExperts);
    routing.view().weights(t, 0) = 0.5F;
  }
  return routing;
}

}  // namespace

int main() {
  must(cuda::require_device());
  bench::BaseLayer layer({kExperts}, kExperts, PolicyKind::lru);
  Roof const roof = measure_roof(layer.stream());
  bench::JsonLine("roof").add("read_bytes_per_s", roof.read_bytes_per_s).add("bf16_flops", roof.flops);
  layer.reserve(std::int64_t{64} * 512);
  for (std::uint32_t const active : {32U, 64U}) {
    for (std::int64_t const each : {1, 2, 4, 8, 12, 16, 32, 64, 128, 256, 512}) {
      std::vector<HostRouting> sets;  // other experts at each step, so that none stays in the cache
      for (std::uint32_t first = 0; first < kExperts; first += active) sets.push_back(routing_of(first, active, each));
      constexpr int kSteps = 8;
      auto const steps = [&](int) {
        for (int i = 0; i < kSteps; ++i) layer.apply(0, sets[static_cast<std::size_t>(i) % sets.size()]);
      };
      double const seconds = bench::device_seconds(layer.stream(), 9, steps) / kSteps;
      double const bytes = static_cast<double>(active) * static_cast<double>(BaseExperts::layout().size_bytes);
      double const flops = 4.0 * static_cast<double>(active * each) * BaseExperts::kModel * BaseExperts::kHidden;
      double const bound = std::max(bytes / roof.read_bytes_per_s, flops / roof.flops);
      bench::JsonLine("layer")
          .add("active_experts", active)
          .add("tokens_per_expert", static_cast<double>(each))
          .add("us", seconds * 1e6)
          .add("roof_us", bound * 1e6)
          .add("of_roof", bound / seconds);
    }
  }
}
