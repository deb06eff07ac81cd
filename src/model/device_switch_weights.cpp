#include "model/device_switch_weights.hpp"

#include <cstring>
#include <utility>
#include <vector>

#include "dense/linear.hpp"
#include "sida/core/workspace.hpp"
#include "sida/cuda/error.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::model_detail {
namespace {

/// Calls `f` with each pointer into the arena.
template <class F>
void for_each_place(SwitchWeights& weights, F const& f) {
  auto const matrix = [&f](WeightMatrix& w) { f(w.data); };
  matrix(weights.embedding);
  f(weights.position_bias);
  f(weights.position_buckets);
  for (auto& block : weights.blocks) {
    f(block.attention_norm);
    for (auto* const w : {&block.q, &block.k, &block.v, &block.o, &block.wi, &block.wo}) matrix(*w);
    f(block.ffn_norm);
  }
  f(weights.final_norm);
  matrix(weights.head_dense);
  f(weights.head_dense_bias);
  matrix(weights.head_out);
  f(weights.head_out_bias);
}

/// Floats of all routers, each aligned as the arena's tensors are.
std::size_t carve_routers(SwitchWeights const& weights, Workspace place, std::vector<float*>& routers) {
  routers.clear();
  for (auto const& block : weights.blocks) routers.push_back(place.take<float>(block.router.rows * block.router.cols));
  return place.used_bytes();
}

}  // namespace

Result<DeviceSwitchWeights> load_device_switch_weights(SwitchConfig const& config, SwitchTensors const& tensors,
                                                       TensorSource const& source, MemoryResource& device,
                                                       MemoryResource& host, cudaStream_t stream) {
  using cuda::check;
  SIDA_TRY_ASSIGN(SwitchWeights read, load_switch_weights(config, tensors, source, host));
  DeviceSwitchWeights loaded;
  loaded.at = read.view();
  std::vector<float*> routers;
  std::size_t const router_bytes = carve_routers(read, Workspace(), routers);
  SIDA_TRY_ASSIGN(Buffer wide_routers, Buffer::allocate(host, router_bytes, Workspace::kAlignment, "routers"));
  carve_routers(read, Workspace(wide_routers.bytes()), routers);
  std::size_t const bytes = (read.arena.size_bytes() + 255) / 256 * 256;
  SIDA_TRY_ASSIGN(loaded.at.arena, Buffer::allocate(device, bytes + router_bytes, 256, "dense weights"));
  std::byte* const base = loaded.at.arena.bytes().data();

  std::byte const* const from = std::as_const(read.arena).bytes().data();
  for_each_place(loaded.at, [&]<class T>(T const*& place) {
    if (place == nullptr) return;
    place = reinterpret_cast<T const*>(base + (reinterpret_cast<std::byte const*>(place) - from));
  });
  for (std::size_t i = 0; i < routers.size(); ++i) {
    WeightMatrix const& router = read.blocks[i].router;
    WeightMatrix& there = loaded.at.blocks[i].router;
    if (router.data == nullptr) continue;
    dense::widen(router.dtype, router.data, {routers[i], static_cast<std::size_t>(router.rows * router.cols)});
    there.dtype = Dtype::f32;
    there.data = base + bytes + (reinterpret_cast<std::byte*>(routers[i]) - wide_routers.bytes().data());
  }
  std::size_t const embedding_bytes =
      static_cast<std::size_t>(read.embedding.rows * read.embedding.cols) * size_bytes(read.embedding.dtype);
  SIDA_TRY_ASSIGN(loaded.embedding_bytes, Buffer::allocate(host, embedding_bytes, Workspace::kAlignment, "embeddings"));
  std::memcpy(loaded.embedding_bytes.bytes().data(), read.embedding.data, embedding_bytes);
  loaded.embedding = read.embedding;
  loaded.embedding.data = loaded.embedding_bytes.bytes().data();
  Status status =
      check(cudaMemcpyAsync(base, from, read.arena.size_bytes(), cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
  if (status && router_bytes > 0) {
    status =
        check(cudaMemcpyAsync(base + bytes, wide_routers.bytes().data(), router_bytes, cudaMemcpyHostToDevice, stream),
              "cudaMemcpyAsync");
  }
  // Whatever failed: what is under way ends before its memory goes.
  Status ended = check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  SIDA_TRY(std::move(status));
  SIDA_TRY(std::move(ended));
  return loaded;
}

}  // namespace sida::inline v0::model_detail
