#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sida/core/memory.hpp"
#include "sida/io/packed.hpp"
#include "sida/io/safetensors.hpp"
#include "tests/io/tiny_checkpoint.hpp"

namespace sida {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using testing::TinyCheckpoint;

enum class Format { safetensors, packed };

/// What every source of experts promises, for each format and read path.
class ExpertSourceConformance : public ::testing::TestWithParam<std::tuple<Format, ReadPath>> {
 protected:
  void SetUp() override {
    auto const [format, read_path] = GetParam();
    if (format == Format::safetensors) {
      source_ = checkpoint_.experts(read_path);
      return;
    }
    ASSERT_TRUE(checkpoint_.pack());
    auto packed = PackedFile::open(checkpoint_.packed_path(), read_path);
    ASSERT_TRUE(packed) << packed.message();
    source_ = std::shared_ptr<ExpertSource const>(*packed, &(*packed)->experts());
  }

  /// The record as the layout draws it, built from the tensors one by one.
  std::vector<std::byte> expected(ExpertId id) const {
    auto const tensors = checkpoint_.tensors();
    ExpertLayout const& layout = checkpoint_.layout;
    auto const& names = checkpoint_.names[id.layer][id.expert];
    std::vector<std::byte> record(layout.size_bytes);
    for (auto const& [name, offset] :
         {std::pair(names.gate, layout.gate), std::pair(names.in, layout.in), std::pair(names.out, layout.out)}) {
      EXPECT_TRUE(tensors->read(name, 0, std::span(record).subspan(offset, layout.matrix_bytes())));
    }
    return record;
  }

  TinyCheckpoint checkpoint_;
  std::shared_ptr<ExpertSource const> source_;
};

TEST_P(ExpertSourceConformance, GivesTheSameBytesWhateverTheFormat) {
  EXPECT_THAT(source_->experts_per_layer(), ::testing::ElementsAre(3, 1, 5));
  HostMemory memory;
  for (std::uint32_t layer = 0; layer < 3; ++layer) {
    for (std::uint32_t expert = 0; expert < source_->experts_per_layer()[layer]; ++expert) {
      ExpertId const id{layer, expert};
      std::size_t const bytes = source_->record_bytes(id);
      ASSERT_EQ(bytes, checkpoint_.layout.size_bytes);
      Buffer slot = *Buffer::allocate(memory, slot_bytes_for(bytes), kRecordAlignment);
      std::ranges::fill(slot.bytes(), std::byte{0xEE});  // what a former tenant left
      Status const status = source_->read(id, slot.bytes());
      ASSERT_TRUE(status) << status.message();
      EXPECT_TRUE(std::ranges::equal(slot.bytes().first(bytes), expected(id))) << to_string(id);
    }
  }
}

TEST_P(ExpertSourceConformance, ServesFourThreadsAtOnce) {
  std::vector<std::vector<std::byte>> wanted;
  for (std::uint32_t expert = 0; expert < 5; ++expert) wanted.push_back(expected({2, expert}));
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      HostMemory memory;
      Buffer slot = *Buffer::allocate(memory, slot_bytes_for(checkpoint_.layout.size_bytes), kRecordAlignment);
      for (std::uint32_t i = 0; i < 40; ++i) {
        std::uint32_t const expert = (t + i) % 5;
        bool const same = source_->read({2, expert}, slot.bytes()) &&
                          std::memcmp(slot.bytes().data(), wanted[expert].data(), wanted[expert].size()) == 0;
        if (!same) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_P(ExpertSourceConformance, CountsWhatItReads) {
  ReadStats const before = source_->read_stats();
  HostMemory memory;
  Buffer slot = *Buffer::allocate(memory, slot_bytes_for(checkpoint_.layout.size_bytes), kRecordAlignment);
  ASSERT_TRUE(source_->read({0, 0}, slot.bytes()));
  ReadStats const after = source_->read_stats();
  EXPECT_GE(after.bytes_read - before.bytes_read, checkpoint_.layout.matrix_bytes() * 3);
  EXPECT_GT(after.reads, before.reads);
}

TEST_P(ExpertSourceConformance, RefusesStrangersAndSmallRooms) {
  HostMemory memory;
  Buffer slot = *Buffer::allocate(memory, slot_bytes_for(checkpoint_.layout.size_bytes), kRecordAlignment);
  for (ExpertId const id : {ExpertId{3, 0}, ExpertId{1, 1}, ExpertId{~0U, ~0U}}) {
    Status const status = source_->read(id, slot.bytes());
    EXPECT_EQ(status.code(), Errc::invalid_argument);
    EXPECT_THAT(status.message(), HasSubstr(to_string(id)));
  }
  EXPECT_EQ(source_->read({0, 0}, slot.bytes().first(100)).code(), Errc::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(Io, ExpertSourceConformance,
                         ::testing::Combine(::testing::Values(Format::safetensors, Format::packed),
                                            ::testing::Values(ReadPath::pread, ReadPath::mmap)),
                         [](auto const& instance) {
                           bool const is_packed = std::get<0>(instance.param) == Format::packed;
                           bool const is_mmap = std::get<1>(instance.param) == ReadPath::mmap;
                           return std::string(is_packed ? "packed" : "safetensors") + (is_mmap ? "_mmap" : "_pread");
                         });

TEST(TensorExpertSource, ReadsUngatedExperts) {
  TinyCheckpoint const checkpoint(FfnKind::relu);
  auto const source = checkpoint.experts();
  HostMemory memory;
  Buffer slot = *Buffer::allocate(memory, slot_bytes_for(source->record_bytes({0, 0})), kRecordAlignment);
  ASSERT_TRUE(source->read({2, 4}, slot.bytes()));
  std::vector<std::byte> matrix(checkpoint.layout.matrix_bytes());
  auto const& names = checkpoint.names[2][4];
  ASSERT_TRUE(checkpoint.tensors()->read(names.out, 0, matrix));
  EXPECT_EQ(std::memcmp(slot.bytes().data() + checkpoint.layout.out, matrix.data(), matrix.size()), 0);
}

TEST(TensorExpertSource, ChecksPresenceTypeAndShape) {
  TinyCheckpoint const checkpoint;
  struct Case {
    ExpertTensorNames names;
    Errc code;
    std::string why;
  };
  auto const good = checkpoint.names[0][0];
  auto const tensors = checkpoint.tensors();
  auto const place = tensors->describe(*tensors->find(good.in));
  EXPECT_THAT(place, ContainsRegex("model.safetensors: tensor '.*' at byte [1-9][0-9]*$"));
  for (Case const& c : {Case{{good.gate, good.in, "absent"}, Errc::not_found, "'absent' is missing"},
                        Case{{"", good.in, good.out}, Errc::not_found, "''"},
                        Case{{good.gate, good.in, "norm"}, Errc::corrupt, ", of layer 0 expert 1, is F32, not bf16"},
                        Case{{good.gate, good.in, good.in},
                             Errc::corrupt,
                             place + ", of layer 0 expert 1, has shape [59, 37], not [37, 59]"}}) {
    auto const source = make_tensor_expert_source(checkpoint.tensors(), checkpoint.layout, {{good, c.names}});
    EXPECT_EQ(source.code(), c.code);
    EXPECT_THAT(source.message(),
                AllOf(HasSubstr(checkpoint.safetensors_path()), HasSubstr("layer 0 expert 1"), HasSubstr(c.why)));
  }
}

TEST(TensorExpertSource, OpensManyExpertsQuickly) {
  TinyCheckpoint const checkpoint(FfnKind::relu, 1, 1, std::vector<std::uint32_t>(6, 256));
  auto const source = checkpoint.experts();
  EXPECT_EQ(source->experts_per_layer().size(), 6U);
  EXPECT_EQ(source->experts_per_layer()[5], 256U);
}

}  // namespace
}  // namespace sida
