#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "offload.hpp"
#include <sida/layer/expert_ffn.hpp>
#include <sida/route/router.hpp>

namespace {

using engine::fail;

constexpr std::int64_t kTokens = 40;

/// Floats in the engine's pool.
class DeviceArray {
 public:
  DeviceArray(engine::Device& device, std::size_t count)
      : device_(device), count_(count), data_(static_cast<float*>(device.pool.take(count * sizeof(float)))) {
    if (data_ == nullptr) fail("the pool is too small");
  }
  ~DeviceArray() { device_.pool.give_back(data_); }
  DeviceArray(DeviceArray const&) = delete;
  DeviceArray& operator=(DeviceArray const&) = delete;
  float* data() { return data_; }
  void upload(std::vector<float> const& from) {
    engine::must(cudaMemcpyAsync(data_, from.data(), count_ * sizeof(float), cudaMemcpyHostToDevice, device_.stream));
  }
  std::vector<float> download() {
    std::vector<float> to(count_);
    engine::must(cudaMemcpyAsync(to.data(), data_, count_ * sizeof(float), cudaMemcpyDeviceToHost, device_.stream));
    engine::must(cudaStreamSynchronize(device_.stream));
    return to;
  }

 private:
  engine::Device& device_;
  std::size_t count_;
  float* data_;
};

std::vector<float> random_floats(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

/// The block on the CPU, an expert at a time, by sida's reference in double precision.
std::vector<float> reference(engine::BlobFile const& file, engine::Config const& config, std::vector<float> const& x,
                             std::vector<float> const& logits) {
  engine::BlobSource const source(file, config);
  sida::TopKSoftmaxRouter const router(config.top_k, sida::TopKSoftmaxRouter::Weights::renormalised);
  sida::HostRouting routing;
  routing.resize(kTokens, config.top_k);
  std::vector<std::uint32_t> const offsets{0, static_cast<std::uint32_t>(kTokens)};
  if (!router.route({logits.data(), kTokens, config.experts}, {offsets}, routing.view())) fail("no routing");
  std::vector<std::byte> record(sida::slot_bytes_for(source.record_bytes({})));
  std::vector<float> y(x.size()), one(static_cast<std::size_t>(config.d_model));
  for (std::int64_t t = 0; t < kTokens; ++t) {
    for (std::int64_t r = 0; r < config.top_k; ++r) {
      if (!source.read({0, routing.view().experts(t, r)}, record)) fail("short read");
      sida::reference_expert_ffn(source.layout(), record.data(), {x.data() + t * config.d_model, 1, config.d_model},
                                 {one.data(), 1, config.d_model});
      for (std::int64_t c = 0; c < config.d_model; ++c) {
        y[static_cast<std::size_t>(t * config.d_model + c)] +=
            routing.view().weights(t, r) * one[static_cast<std::size_t>(c)];
      }
    }
  }
  return y;
}

double distance(std::vector<float> const& a, std::vector<float> const& b) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(error / norm);
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaError_t const error = cudaGetDeviceCount(&devices); error != cudaSuccess) {
    std::printf("no GPU: %s\n", cudaGetErrorString(error));
    return 77;
  }
  engine::Config const config;
  engine::BlobFile const file(config);
  engine::Device device(std::size_t{128} << 20);
  auto const x_here = random_floats(kTokens * config.d_model, 1);
  auto const logits_here = random_floats(kTokens * config.experts, 2);
  DeviceArray x(device, x_here.size()), logits(device, logits_here.size()), y(device, x_here.size());
  x.upload(x_here);
  logits.upload(logits_here);

  auto const expected = reference(file, config, x_here, logits_here);
  std::vector<float> first;
  std::printf("%14s %8s %8s %12s  %s\n", "experts on GPU", "hits", "copies", "error/norm", "output");
  for (std::uint32_t const slots : {config.experts, 6U, 1U}) {
    engine::OffloadedBlock block(device, file, config, slots);
    for (int step = 0; step < 3; ++step) block.run(x.data(), logits.data(), y.data(), kTokens);
    auto const got = y.download();
    if (first.empty()) first = got;
    bool const same = std::memcmp(got.data(), first.data(), got.size() * sizeof(float)) == 0;
    double const error = distance(got, expected);
    std::printf("%8u of %3u %8llu %8llu %12.2e  %s\n", slots, config.experts,
                static_cast<unsigned long long>(block.stats().hits),
                static_cast<unsigned long long>(block.stats().loads), error, same ? "the same bits" : "OTHER BITS");
    if (!same) fail("the output depends on the memory");
    if (!(error < 1e-2)) fail("the output is far from the reference");  // bf16 activations
  }
}
