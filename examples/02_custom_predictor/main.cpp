// A predictor of one's own: plans for each token are submitted ahead of its step, so that experts are on their way
// before the routers ask for them. Decodes the same tokens with and without it, and compares.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "model.hpp"
#include "previous_token.hpp"
#include <sida/core/memory.hpp>
#include <sida/layer/moe_layer.hpp>
#include <sida/runtime/plan_queue.hpp>

namespace {

using Router = sida::TopKSoftmaxRouter;
using Layer = sida::MoeLayer<sida::bf16, sida::Tier::host, Router>;
constexpr std::uint64_t kSteps = 96;
// Fewer slots than one token's experts in all layers: by the time a layer comes round again, others have its slots.
constexpr std::size_t kSlots = 10;

struct Outcome {
  std::vector<float> outputs;  // [steps, d_model]
  sida::StoreStats stats;
};

/// Decodes token by token. The predictor is asked before each step and told what the routers said during it.
template <sida::Predictor P>
sida::Result<Outcome> decode(Model const& model, std::shared_ptr<RecordFile const> const& experts, P predictor) {
  sida::HostMemory memory;
  sida::InlinePool pool;
  std::size_t const slot_bytes = sida::slot_bytes_for(experts->record_bytes({}));
  auto store = sida::ExpertStore::open(*experts, sida::make_host_tier(experts, memory, 2),
                                       {.budget_bytes = kSlots * slot_bytes});
  if (!store) return store.error();
  std::vector<Layer> layers;
  for (std::uint32_t layer = 0; layer < Model::kLayers; ++layer) {
    layers.emplace_back(Model::shape(layer), **store, Router(Model::kTopK, Router::Weights::renormalised));
  }
  auto workspace = sida::Buffer::allocate(memory, layers[0].workspace_bytes(1));
  if (!workspace) return workspace.error();

  Outcome outcome;
  sida::HostRouting routing;
  routing.resize(1, Model::kTopK);
  std::uint32_t const sequence[] = {0, 1};
  std::vector<float> hidden(Model::kDModel), x(Model::kDModel), y(Model::kDModel), logits(Model::kExperts);
  std::uint32_t token = 1;
  for (std::uint64_t step = 0; step < kSteps; ++step) {
    sida::TokenBatch batch;
    batch.number = step;
    batch.append(std::vector<std::int32_t>{static_cast<std::int32_t>(token)});
    auto const plan = predictor.predict({batch, {}});
    if (!plan) return plan.error();
    auto const submitted = sida::SubmittedPlan::submit(**store, *plan);  // an empty plan submits nothing
    if (!submitted) return submitted.error();

    model.take(token, hidden);
    std::vector<float> residual = hidden;
    for (std::uint32_t layer = 0; layer < Model::kLayers; ++layer) {
      Model::normalise(residual, x);
      model.router_logits(layer, x, logits);
      auto status =
          layers[layer].route({logits.data(), 1, Model::kExperts}, {.sequence_offsets = sequence}, routing.view());
      if (!status) return status;
      predictor.observe(step, layer, routing.view().experts);
      status = layers[layer].apply({x.data(), 1, Model::kDModel}, routing.view(), {y.data(), 1, Model::kDModel},
                                   {.pool = pool, .workspace = workspace->bytes(), .position = submitted->at(layer)});
      if (!status) return status;
      for (std::size_t i = 0; i < residual.size(); ++i) residual[i] += y[i];
    }
    Model::normalise(residual, x);
    token = model.next_token(x);
    outcome.outputs.insert(outcome.outputs.end(), x.begin(), x.end());
  }
  outcome.stats = (*store)->stats();
  return outcome;
}

void print(char const* name, sida::StoreStats const& s) {
  auto const number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf("%-16s %8llu %8llu %10llu %8llu %8llu\n", name, number(s.hits), number(s.misses), number(s.prefetches),
              number(s.prefetches_used), number(s.prefetches_wasted));
}

int fail(char const* why) {
  std::fprintf(stderr, "custom_predictor: %s\n", why);
  return 1;
}

}  // namespace

int main() {
  Model const model(1);
  auto const experts = RecordFile::write(2);
  if (!experts) return fail(experts.message().c_str());
  auto const without = decode(model, *experts, sida::NoPredictor());
  if (!without) return fail(without.message().c_str());
  auto const with = decode(model, *experts, PreviousTokenPredictor());
  if (!with) return fail(with.message().c_str());

  std::printf("%-16s %8s %8s %10s %8s %8s\n", "predictor", "hits", "misses", "prefetches", "used", "wasted");
  print("none", without->stats);
  print("previous token", with->stats);
  if (std::memcmp(with->outputs.data(), without->outputs.data(), with->outputs.size() * sizeof(float)) != 0) {
    return fail("the outputs differ");
  }
  std::printf("outputs of %llu tokens are identical\n", static_cast<unsigned long long>(kSteps));
  if (with->stats.hits <= without->stats.hits) return fail("the predictor brought no hits");
  return 0;
}
