// Experts from somebody's own file format, served within budgets of memory.
//   custom_source                  writes a file, serves from it and removes it
//   custom_source FILE             serves from a file that is there
//   custom_source --write FILE     only writes one
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "stacked_file.hpp"
#include <sida/core/memory.hpp>
#include <sida/layer/moe_layer.hpp>

namespace {

using Layer = sida::MoeLayer<sida::bf16, sida::Tier::host, sida::TopKSoftmaxRouter>;
constexpr std::int64_t kTokens = 12;
constexpr std::uint32_t kPasses = 3;
constexpr StackedHeader kWritten{.layers = 3, .experts = 10, .d_model = 96, .d_ff = 160};

/// What a pass through all layers needs: the same in every arm.
struct Pass {
  std::int64_t d_model = 0, k = 0;
  std::vector<float> x;                     // [tokens, d_model]
  std::vector<sida::HostRouting> routings;  // [layers]

  sida::MoeShape shape(StackedHeader const& header, std::uint32_t layer) const {
    return {layer, header.experts, k, sida::FfnKind::swiglu, d_model, header.d_ff};
  }
};

/// Random tokens and logits, routed.
sida::Result<Pass> make_pass(StackedHeader const& header) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  Pass pass{.d_model = header.d_model, .k = std::min<std::int64_t>(2, header.experts), .x = {}, .routings = {}};
  pass.x.resize(static_cast<std::size_t>(kTokens * pass.d_model));
  for (float& value : pass.x) value = normal(random);
  sida::TopKSoftmaxRouter const router(pass.k, sida::TopKSoftmaxRouter::Weights::renormalised);
  std::uint32_t const sequence[] = {0, static_cast<std::uint32_t>(kTokens)};
  std::vector<float> logits(static_cast<std::size_t>(kTokens) * header.experts);
  pass.routings.resize(header.layers);
  for (sida::HostRouting& routing : pass.routings) {
    for (float& value : logits) value = normal(random);
    routing.resize(kTokens, pass.k);
    auto status =
        router.route({logits.data(), kTokens, header.experts}, {.sequence_offsets = sequence}, routing.view());
    if (!status) return status;
  }
  return pass;
}

/// All layers one after the other, several times; `step(layer, x, y)` runs one.
template <class Step>
sida::Result<std::vector<float>> run(StackedHeader const& header, Pass const& pass, Step const& step) {
  std::vector<float> x = pass.x, y(x.size());
  for (std::uint32_t i = 0; i < kPasses * header.layers; ++i) {
    std::uint32_t const layer = i % header.layers;
    sida::Status const status = step(layer, sida::Matrix<float const>(x.data(), kTokens, pass.d_model),
                                     sida::Matrix<float>(y.data(), kTokens, pass.d_model));
    if (!status) return status;
    for (std::size_t j = 0; j < x.size(); ++j) x[j] = 0.5F * (x[j] + y[j]);
  }
  return x;
}

/// All records, [layers, experts] of `slot` bytes. Read from the first byte of the file to the last, without what the
/// source does, so that one checks the other.
sida::Result<sida::Buffer> load_all(std::string const& path, StackedSource const& source, std::size_t slot) {
  static sida::HostMemory memory;  // outlives the buffer
  StackedHeader const& header = source.header();
  sida::ExpertLayout const& layout = source.layout();
  auto all = sida::Buffer::allocate(memory, slot * header.layers * header.experts, sida::kRecordAlignment);
  if (!all) return all;
  std::ifstream file(path, std::ios::binary);
  file.seekg(sizeof(StackedHeader));
  for (std::uint32_t layer = 0; layer < header.layers; ++layer) {
    for (std::size_t const place : {layout.gate, layout.in, layout.out}) {
      for (std::uint32_t expert = 0; expert < header.experts; ++expert) {
        std::byte* const record = all->bytes().data() + slot * (layer * header.experts + expert);
        file.read(reinterpret_cast<char*>(record + place), static_cast<std::streamsize>(layout.matrix_bytes()));
      }
    }
  }
  if (!file) return sida::Error(sida::Errc::io, path + ": could not be read");
  return all;
}

sida::Result<std::vector<float>> run_resident(std::string const& path, StackedSource const& source, Pass& pass) {
  sida::HostMemory memory;
  sida::InlinePool pool;
  StackedHeader const& header = source.header();
  std::size_t const slot = sida::slot_bytes_for(source.layout().size_bytes);
  auto all = load_all(path, source, slot);
  if (!all) return all.error();
  auto workspace = sida::Buffer::allocate(memory, sida::moe_workspace_bytes(pass.shape(header, 0), kTokens));
  if (!workspace) return workspace.error();
  return run(header, pass, [&](std::uint32_t layer, auto x, auto y) {
    std::vector<std::byte const*> records;
    for (std::uint32_t expert = 0; expert < header.experts; ++expert) {
      records.push_back(all->bytes().data() + slot * (layer * header.experts + expert));
    }
    return sida::moe_over_arrays(pass.shape(header, layer), sida::Dtype::bf16, sida::best_cpu_isa(), records, x,
                                 pass.routings[layer].view(), y, {.pool = pool, .workspace = workspace->bytes()});
  });
}

sida::Result<std::vector<float>> run_offloaded(std::shared_ptr<StackedSource const> const& source, Pass& pass,
                                               std::uint32_t slots, sida::StoreStats& stats) {
  sida::HostMemory memory;
  sida::WorkerPool pool(2);
  StackedHeader const& header = source->header();
  auto store = sida::ExpertStore::open(*source, sida::make_host_tier(source, memory, 2),
                                       {.budget_bytes = slots * sida::slot_bytes_for(source->layout().size_bytes)});
  if (!store) return store.error();
  auto workspace = sida::Buffer::allocate(memory, sida::moe_workspace_bytes(pass.shape(header, 0), kTokens));
  if (!workspace) return workspace.error();
  auto output = run(header, pass, [&](std::uint32_t layer, auto x, auto y) {
    Layer moe(pass.shape(header, layer), **store, {pass.k, sida::TopKSoftmaxRouter::Weights::renormalised});
    return moe.apply(x, pass.routings[layer].view(), y, {.pool = pool, .workspace = workspace->bytes()});
  });
  stats = (*store)->stats();
  return output;
}

sida::Status serve(std::string const& path) {
  auto const source = StackedSource::open(path);
  if (!source) return source.status();
  StackedHeader const& header = (*source)->header();
  auto pass = make_pass(header);
  if (!pass) return pass.status();
  auto const expected = run_resident(path, **source, *pass);
  if (!expected) return expected.status();
  std::uint32_t const all = header.layers * header.experts;
  for (std::uint32_t const slots : {all, std::max(all / 3, 1U), 1U}) {
    sida::StoreStats stats;
    auto const output = run_offloaded(*source, *pass, slots, stats);
    if (!output) return output.status();
    if (std::memcmp(output->data(), expected->data(), expected->size() * sizeof(float)) != 0) {
      return {sida::Errc::corrupt, "the output with " + std::to_string(slots) + " slots differs from all resident"};
    }
    std::printf("%3u of %u experts fit: %llu loads, output identical to all resident\n", slots, all,
                static_cast<unsigned long long>(stats.loads));
  }
  return {};
}

sida::Status write_and_serve() {
  auto folder = (std::filesystem::temp_directory_path() / "custom_source_XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return {sida::Errc::io, folder + ": could not be made"};
  std::string const path = folder + "/experts.stk";
  auto status = write_stacked_file(path, kWritten, 1);
  if (status) status = serve(path);
  std::filesystem::remove_all(folder);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  sida::Status status;
  if (argc == 1) {
    status = write_and_serve();
  } else if (argc == 2 && argv[1][0] != '-') {
    status = serve(argv[1]);
  } else if (argc == 3 && std::strcmp(argv[1], "--write") == 0) {
    status = write_stacked_file(argv[2], kWritten, 1);
  } else {
    std::fprintf(stderr, "usage: custom_source [FILE | --write FILE]\n");
    return 2;
  }
  if (!status) std::fprintf(stderr, "custom_source: %s\n", status.message().c_str());
  return status ? 0 : 1;
}
