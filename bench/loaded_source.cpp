#include "bench/loaded_source.hpp"

#include <algorithm>
#include <utility>

#include "sida/core/expert_layout.hpp"
#include "sida/detail/try.hpp"

namespace sida::bench {

Result<std::shared_ptr<LoadedSource const>> LoadedSource::of(ExpertSource const& experts) {
  auto loaded = std::make_shared<LoadedSource>();
  auto const layers = experts.experts_per_layer();
  loaded->experts_per_layer_.assign(layers.begin(), layers.end());
  for (std::uint32_t layer = 0; layer < layers.size(); ++layer) {
    loaded->records_.emplace_back();
    for (std::uint32_t expert = 0; expert < layers[layer]; ++expert) {
      std::size_t const bytes = experts.record_bytes({layer, expert});
      SIDA_TRY_ASSIGN(auto data, Buffer::allocate(loaded->memory_, slot_bytes_for(bytes), kRecordAlignment));
      SIDA_TRY(experts.read({layer, expert}, data.bytes()));
      loaded->records_.back().push_back({bytes, std::move(data)});
    }
  }
  return std::shared_ptr<LoadedSource const>(std::move(loaded));
}

Status LoadedSource::read(ExpertId id, std::span<std::byte> dst) const {
  Record const& record = records_[id.layer][id.expert];
  std::ranges::copy(record.data.bytes().first(record.bytes), dst.begin());
  return {};
}

}  // namespace sida::bench
