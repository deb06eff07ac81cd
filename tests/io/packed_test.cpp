#include "sida/io/packed.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/checksum.hpp"
#include "io/packed_format.hpp"
#include "sida/core/memory.hpp"
#include "tests/io/tiny_checkpoint.hpp"

namespace sida {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TinyCheckpoint;

/// Opens a container and reads all that it holds. The first error, or success.
Status read_all(std::string const& path, ReadPath read_path = ReadPath::pread) {
  auto const packed = PackedFile::open(path, read_path);
  if (!packed) return packed.status();
  TensorSource const& dense = (*packed)->dense();
  for (TensorInfo const& info : dense.tensors()) {
    std::vector<std::byte> bytes(info.size_bytes);
    if (Status status = dense.read(info.name, 0, bytes); !status) return status;
  }
  ExpertSource const& experts = (*packed)->experts();
  HostMemory memory;
  for (std::uint32_t layer = 0; layer < experts.experts_per_layer().size(); ++layer) {
    for (std::uint32_t expert = 0; expert < experts.experts_per_layer()[layer]; ++expert) {
      Buffer slot = *Buffer::allocate(memory, slot_bytes_for(experts.record_bytes({layer, expert})), kRecordAlignment);
      if (Status status = experts.read({layer, expert}, slot.bytes()); !status) return status;
    }
  }
  return {};
}

class Packed : public ::testing::TestWithParam<ReadPath> {
 protected:
  void SetUp() override {
    Status const status = checkpoint_.pack();
    ASSERT_TRUE(status) << status.message();
    content_ = testing::read_file(path_);
    auto const header = io_detail::parse_packed_header(std::as_bytes(std::span(content_)), content_.size(), path_);
    ASSERT_TRUE(header) << header.message();
    header_ = *header;
    auto const index = io_detail::parse_packed_index(
        std::as_bytes(std::span(content_)).subspan(header_.index.offset, header_.index.size_bytes), header_, path_);
    ASSERT_TRUE(index) << index.message();
    index_ = *index;
  }
  /// What reading everything says of the container with one byte changed.
  Status with_flipped(std::uint64_t at) {
    flip(at);
    Status status = read_all(path_, GetParam());
    flip(at);
    return status;
  }
  /// Flips a bit of the byte at `at`, in place.
  void flip(std::uint64_t at) {
    content_[at] = static_cast<char>(content_[at] ^ 0x20);
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(content_[at]);
    ASSERT_TRUE(file.flush());
  }

  TinyCheckpoint checkpoint_;
  std::string path_ = checkpoint_.packed_path();
  std::string content_;
  io_detail::PackedHeader header_;
  io_detail::PackedIndex index_;
};

INSTANTIATE_TEST_SUITE_P(Io, Packed, ::testing::Values(ReadPath::pread, ReadPath::mmap),
                         [](auto const& instance) { return instance.param == ReadPath::pread ? "pread" : "mmap"; });

TEST_P(Packed, HoldsWhatWasPutIn) {
  auto const packed = PackedFile::open(path_, GetParam());
  ASSERT_TRUE(packed) << packed.message();
  EXPECT_EQ((*packed)->config_json(), R"({"d_model": 37})");
  EXPECT_EQ((*packed)->tokenizer(), "not really a tokenizer");
  EXPECT_EQ((*packed)->layout().shape, checkpoint_.layout.shape);
  EXPECT_EQ((*packed)->layout().size_bytes, checkpoint_.layout.size_bytes);
  TensorSource const& dense = (*packed)->dense();
  EXPECT_EQ(dense.path(), path_);
  ASSERT_EQ(dense.tensors().size(), 3U);
  auto const original = checkpoint_.tensors();
  for (TensorInfo const& info : dense.tensors()) {
    TensorInfo const* const wanted = original->find(info.name);
    ASSERT_NE(wanted, nullptr);
    EXPECT_EQ(info.dtype_name, wanted->dtype_name);
    EXPECT_EQ(info.shape, wanted->shape);
    std::vector<std::byte> a(info.size_bytes);
    std::vector<std::byte> b(info.size_bytes);
    ASSERT_TRUE(dense.read(info.name, 0, a));
    ASSERT_TRUE(original->read(info.name, 0, b));
    EXPECT_TRUE(a == b) << info.name;
  }
  EXPECT_TRUE(read_all(path_, GetParam()));
}

TEST_P(Packed, ReadsPartsOfDenseTensors) {
  auto const packed = PackedFile::open(path_, GetParam());
  ASSERT_TRUE(packed) << packed.message();
  TensorSource const& dense = (*packed)->dense();
  std::string const embed = testing::noise(2'600'000, 101);
  constexpr std::size_t kMiB = 1 << 20;
  for (auto const& [offset, bytes] : {std::pair(0UL, 0UL),
                                      {0UL, 1UL},
                                      {5UL, 100UL},
                                      {kMiB - 1, 2UL},
                                      {kMiB, kMiB},
                                      {kMiB, kMiB + 1},
                                      {100UL, 2'599'900UL},
                                      {2'599'999UL, 1UL},
                                      {2 * kMiB, 2'600'000 - 2 * kMiB}}) {
    std::vector<std::byte> dst(bytes);
    Status const status = dense.read("embed", offset, dst);
    ASSERT_TRUE(status) << status.message();
    EXPECT_TRUE(bytes == 0 || std::memcmp(dst.data(), embed.data() + offset, bytes) == 0) << offset << " " << bytes;
  }
  std::vector<std::byte> dst(8);
  EXPECT_EQ(dense.read("embed", 2'599'999, dst).code(), Errc::invalid_argument);
  EXPECT_EQ(dense.read("absent", 0, dst).code(), Errc::not_found);
}

TEST_P(Packed, LaysRecordsOutForDirectReads) {
  EXPECT_EQ(header_.experts_offset % 4096, 0U);
  EXPECT_EQ(content_.size(), header_.experts_offset + 9 * slot_bytes_for(checkpoint_.layout.size_bytes));
  auto const packed = PackedFile::open(path_, GetParam());
  ASSERT_TRUE(packed);
  HostMemory memory;
  Buffer slot = *Buffer::allocate(memory, slot_bytes_for(checkpoint_.layout.size_bytes), kRecordAlignment);
  ReadStats const before = (*packed)->experts().read_stats();
  ASSERT_TRUE((*packed)->experts().read({2, 1}, slot.bytes()));
  ReadStats const after = (*packed)->experts().read_stats();
  EXPECT_EQ(after.bytes_read - before.bytes_read, slot_bytes_for(checkpoint_.layout.size_bytes));
  EXPECT_EQ(after.overread_bytes, before.overread_bytes);
  EXPECT_EQ(after.staging_bytes, before.staging_bytes);
}

TEST_P(Packed, IsTheSameBytesFromTheSameInput) {
  ASSERT_TRUE(checkpoint_.pack());
  EXPECT_TRUE(testing::read_file(path_) == content_);
}

TEST_P(Packed, CanBePackedFromAContainer) {
  auto const packed = PackedFile::open(path_, GetParam());
  ASSERT_TRUE(packed);
  std::string const copy = checkpoint_.folder / "copy.sida";
  ASSERT_TRUE(write_packed(copy, checkpoint_.pack_input((*packed)->dense(), (*packed)->experts())));
  EXPECT_TRUE(testing::read_file(copy) == content_);
}

TEST_P(Packed, EveryFlippedByteUpToTheTokenizersEndIsCorrupt) {
  // The header's reserved bytes are all alike: one in 61 of them will do.
  for (std::uint64_t at = 0; at < header_.tokenizer.end(); at += at < 160 || at >= 4088 ? 1 : 61) {
    flip(at);
    Status const status = PackedFile::open(path_, GetParam()).status();
    flip(at);
    ASSERT_EQ(status.code(), Errc::corrupt) << at << ": " << status.message();
    ASSERT_THAT(status.message(), AllOf(HasSubstr(path_), ::testing::AnyOf(HasSubstr("byte"), HasSubstr("offset"))));
  }
}

TEST_P(Packed, FlippedBytesOfDenseTensorsAreCorruptAndNameTheTensor) {
  for (std::size_t i = 0; i < index_.infos.size(); ++i) {
    std::uint64_t const bytes = index_.infos[i].size_bytes;
    for (std::uint64_t const at : {std::uint64_t{0}, bytes / 2, bytes - 1}) {
      if (bytes == 0) continue;
      Status const status = with_flipped(index_.tensors[i].offset + at);
      EXPECT_EQ(status.code(), Errc::corrupt);
      std::uint64_t const chunk =
          index_.tensors[i].offset + at / io_detail::kPackedChunkBytes * io_detail::kPackedChunkBytes;
      EXPECT_THAT(status.message(), AllOf(HasSubstr(path_), HasSubstr("'" + index_.infos[i].name + "'"),
                                          HasSubstr("offset " + std::to_string(chunk))));
    }
  }
}

TEST_P(Packed, FlippedBytesOfARecordAreCorruptAndNameTheExpert) {
  std::uint64_t const record = header_.experts_offset + 5 * header_.stride();  // layers have 3, 1 and 5
  for (std::uint64_t const at :
       {std::size_t{0}, checkpoint_.layout.in, checkpoint_.layout.matrix_bytes(), checkpoint_.layout.size_bytes - 1}) {
    Status const status = with_flipped(record + at);
    EXPECT_EQ(status.code(), Errc::corrupt);
    EXPECT_THAT(status.message(),
                AllOf(HasSubstr(path_), HasSubstr("layer 2 expert 1"), HasSubstr("offset " + std::to_string(record))));
  }
  // Padding after a record is nobody's.
  EXPECT_TRUE(with_flipped(record + checkpoint_.layout.size_bytes));
}

TEST_P(Packed, ADamagedRecordLeavesTheOthersReadable) {
  flip(header_.experts_offset);
  auto const packed = PackedFile::open(path_, GetParam());
  ASSERT_TRUE(packed);
  HostMemory memory;
  Buffer slot = *Buffer::allocate(memory, slot_bytes_for(checkpoint_.layout.size_bytes), kRecordAlignment);
  EXPECT_FALSE((*packed)->experts().read({0, 0}, slot.bytes()));
  EXPECT_TRUE((*packed)->experts().read({0, 1}, slot.bytes()));
}

TEST_P(Packed, EveryTruncationIsCorrupt) {
  for (std::uint64_t size = content_.size() - 1; size > 0; size -= std::min(size, size < 4200 ? 41UL : 100'003UL)) {
    std::filesystem::resize_file(path_, size);
    auto const packed = PackedFile::open(path_, GetParam());
    ASSERT_EQ(packed.code(), Errc::corrupt) << size << ": " << packed.message();
    ASSERT_THAT(packed.message(), HasSubstr(path_));
  }
  testing::write_file(path_, content_ + "x");
  EXPECT_EQ(PackedFile::open(path_, GetParam()).code(), Errc::corrupt);
}

TEST_P(Packed, ARecordReplacedByAnotherIsCorrupt) {
  std::string changed = content_;
  std::uint64_t const stride = header_.stride();
  std::swap_ranges(changed.begin() + static_cast<std::ptrdiff_t>(header_.experts_offset),
                   changed.begin() + static_cast<std::ptrdiff_t>(header_.experts_offset + stride),
                   changed.begin() + static_cast<std::ptrdiff_t>(header_.experts_offset + stride));
  testing::write_file(path_, changed);
  EXPECT_EQ(read_all(path_, GetParam()).code(), Errc::corrupt);
}

/// `content` with `field` at `at` in the header and its checksum made right again.
std::string with_header_field(std::string content, std::size_t at, std::uint64_t field, std::size_t bytes) {
  std::memcpy(content.data() + at, &field, bytes);
  std::uint64_t const checksum =
      io_detail::xxh3_64(std::as_bytes(std::span(content)).first(io_detail::kPackedChecksumAt));
  std::memcpy(content.data() + io_detail::kPackedChecksumAt, &checksum, 8);
  return content;
}

TEST_P(Packed, AnotherVersionIsUnsupported) {
  testing::write_file(path_, with_header_field(content_, 8, 2, 4));
  auto const packed = PackedFile::open(path_, GetParam());
  EXPECT_EQ(packed.code(), Errc::unsupported);
  EXPECT_THAT(packed.message(), AllOf(HasSubstr(path_), HasSubstr("version 2")));
}

/// What the header says, and the index under it.
Status parse_header(std::string const& content) {
  auto const bytes = std::as_bytes(std::span(content));
  auto const header = io_detail::parse_packed_header(bytes, content.size(), "p.sida");
  if (!header) return header.status();
  auto const section = bytes.subspan(header->index.offset, header->index.size_bytes);
  if (io_detail::xxh3_64(section) != header->index.xxh3) return Error(Errc::corrupt, "index");
  auto const index = io_detail::parse_packed_index(section, *header, "p.sida");
  for (auto const& part : {header->config, header->tokenizer}) {
    if (io_detail::xxh3_64(bytes.subspan(part.offset, part.size_bytes)) != part.xxh3)
      return Error(Errc::corrupt, "part");
  }
  return index.status();
}

TEST_P(Packed, ALyingHeaderWithARightChecksumIsCorrupt) {
  for (std::size_t const at : {16U, 24U, 40U, 48U, 64U, 72U, 88U, 96U, 104U, 120U, 128U, 136U}) {
    for (std::uint64_t const value : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4095}, std::uint64_t{1} << 32,
                                      std::uint64_t{1} << 62, ~std::uint64_t{0}, ~std::uint64_t{4095}}) {
      Status const status = parse_header(with_header_field(content_, at, value, 8));
      EXPECT_EQ(status.code(), Errc::corrupt) << at << " = " << value << ": " << status.message();
    }
  }
  for (std::size_t const at : {112U, 116U}) {
    EXPECT_EQ(parse_header(with_header_field(content_, at, 3, 4)).code(), Errc::corrupt);
  }
}

TEST_P(Packed, NoByteOfTheIndexCanBreakTheParser) {
  std::string index = content_.substr(header_.index.offset, header_.index.size_bytes);
  for (char& byte : index) {
    char const before = byte;
    for (int const value : {0x00, 0x01, 0x7F, 0x80, 0xFF}) {
      byte = static_cast<char>(value);
      (void)io_detail::parse_packed_index(std::as_bytes(std::span(index)), header_, path_).status();
    }
    byte = before;
  }
  for (std::size_t size = 0; size < index.size(); ++size) {
    EXPECT_EQ(io_detail::parse_packed_index(std::as_bytes(std::span(index)).first(size), header_, path_).code(),
              Errc::corrupt);
  }
}

}  // namespace
}  // namespace sida
