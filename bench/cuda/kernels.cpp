// Where a layer's time goes on the device: each of its kernels alone, on buffers larger than the cache.
#include "kernels/cuda/kernels.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include "bench/cuda/device_timer.hpp"
#include "bench/cuda/random_bytes.hpp"
#include "bench/json_line.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/cuda/handles.hpp"
#include "sida/cuda/memory.hpp"

namespace {

using namespace sida;
using bench::must;
using bench::take;
namespace kernels = cuda::kernels;

constexpr std::int64_t kModel = 768;
constexpr std::int64_t kHidden = 3072;
constexpr std::uint32_t kActive = 32;
constexpr std::uint32_t kSets = 4;

void report(std::string const& kernel, std::int64_t each, double seconds, double bytes, double flops) {
  bench::JsonLine("kernel")
      .add("kernel", kernel)
      .add("rows_per_group", static_cast<double>(each))
      .add("us", seconds * 1e6)
      .add("gb_per_s", bytes / seconds / 1e9)
      .add("tflops", flops / seconds / 1e12);
}

}  // namespace

int main() {
  must(cuda::require_device());
  auto const stream_owner = take(cuda::Stream::create());
  cudaStream_t const stream = stream_owner.get();
  auto const layout = take(ExpertLayout::of({FfnKind::relu, Dtype::bf16, kModel, kHidden}));
  constexpr std::int64_t kMostRows = std::int64_t{512} * kActive;
  cuda::DeviceMemory memory;
  auto const allocate = [&](std::int64_t bytes) {
    Buffer buffer = take(Buffer::allocate(memory, static_cast<std::size_t>(bytes), 256));
    bench::fill_random_numbers(buffer.bytes(), Dtype::bf16, stream);
    return buffer;
  };
  Buffer records = allocate(static_cast<std::int64_t>(layout.size_bytes) * kActive * kSets);
  Buffer x = allocate(kMostRows * kModel * 2);
  Buffer wide = allocate(kMostRows * kModel * 4);
  Buffer h = allocate(kMostRows * kHidden * 2);
  Buffer out = allocate(kMostRows * kModel * 4);
  Buffer order = allocate(kMostRows * 4);
  Buffer weights = allocate(kMostRows * 4);
  Buffer experts = allocate(kMostRows * 2);
  must(cudaMemsetAsync(experts.bytes().data(), 0, experts.size_bytes(), stream));
  must(stream_owner.synchronize());
  std::vector<std::uint32_t> identity(kMostRows);
  for (std::uint32_t i = 0; i < kMostRows; ++i) identity[i] = i;
  must(cudaMemcpy(order.bytes().data(), identity.data(), identity.size() * 4, cudaMemcpyHostToDevice));

  kernels::GroupShape const hidden{Dtype::bf16, FfnKind::relu, kHidden, kModel, kModel, kHidden, layout.in, 0};
  kernels::GroupShape const output{Dtype::bf16, FfnKind::relu, kModel, kHidden, kHidden, kModel, layout.out, 0};
  for (std::int64_t const each : {1, 4, 8, 16, 32, 64, 128, 256, 512}) {
    std::vector<std::vector<kernels::RowGroup>> sets(kSets);
    for (std::uint32_t s = 0; s < kSets; ++s) {
      for (std::uint32_t e = 0; e < kActive; ++e) {
        sets[s].push_back({records.bytes().data() + (s * kActive + e) * layout.size_bytes,
                           static_cast<std::int32_t>(e * each), static_cast<std::int32_t>(each)});
      }
    }
    double const bytes = static_cast<double>(layout.size_bytes) / 2 * kActive;
    double const flops = 2.0 * static_cast<double>(each) * kActive * kModel * kHidden;
    constexpr int kSteps = 8;
    auto const timed = [&](auto const& work) {
      return bench::device_seconds(stream, 9,
                                   [&](int) {
                                     for (int i = 0; i < kSteps; ++i)
                                       must(work(sets[static_cast<std::size_t>(i) % kSets]));
                                   }) /
             kSteps;
    };
    auto* const out_floats = reinterpret_cast<float*>(out.bytes().data());
    auto const* const wide_floats = reinterpret_cast<float const*>(wide.bytes().data());
    report("group_hidden", each, timed([&](auto const& groups) {
             return kernels::group_hidden(stream, hidden, groups, x.bytes().data(), h.bytes().data());
           }),
           bytes, flops);
    report("group_output", each, timed([&](auto const& groups) {
             return kernels::group_output(stream, output, groups, h.bytes().data(), out_floats);
           }),
           bytes, flops);
    std::int64_t const rows = each * kActive;
    report("gather", each, timed([&](auto const&) {
             kernels::RowOrder order_there;
             order_there.on_device = reinterpret_cast<std::uint32_t const*>(order.bytes().data());
             order_there.rows = rows;
             return kernels::gather_rows(stream, Dtype::bf16, wide_floats, kModel, order_there, x.bytes().data(),
                                         kModel, kModel);
           }),
           static_cast<double>(rows) * kModel * 6, 0);
    kernels::CombineRouting const routing{reinterpret_cast<std::uint16_t const*>(experts.bytes().data()),
                                          reinterpret_cast<float const*>(weights.bytes().data()),
                                          reinterpret_cast<std::uint32_t const*>(order.bytes().data()), 1};
    report("combine", each, timed([&](auto const&) {
             return kernels::combine(stream, routing, out_floats, wide_floats, kModel,
                                     reinterpret_cast<float*>(wide.bytes().data()), kModel, rows, kModel, true);
           }),
           static_cast<double>(rows) * kModel * 12, 0);
  }
}
