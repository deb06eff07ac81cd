#include "cli/npy.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cli/digest.hpp"
#include "tests/io/temp_dir.hpp"

namespace sida::cli {
namespace {

using Shape = std::vector<std::uint64_t>;

std::span<std::byte const> bytes_of(std::string const& text) { return std::as_bytes(std::span(text)); }

/// A file as numpy writes it.
std::string npy_file(std::string const& dictionary, std::string const& data, char version = 1) {
  std::string text = dictionary;
  std::size_t const prefix = version == 1 ? 10 : 12;
  text.append(64 - (prefix + text.size() + 1) % 64, ' ');
  text += '\n';
  std::string file = std::string("\x93NUMPY") + version + '\0';
  for (unsigned i = 0; i < (version == 1 ? 2U : 4U); ++i) file += static_cast<char>(text.size() >> (8 * i) & 0xFF);
  return file + text + data;
}

TEST(Npy, ReadsWhatItWrote) {
  testing::TempDir const folder;
  auto writer = NpyWriter::create(folder / "x.npy", NpyType::f32, {3});
  ASSERT_TRUE(writer) << writer.message();
  EXPECT_TRUE(folder.names() != std::vector<std::string>{"x.npy"}) << "visible before it is whole";
  std::vector<float> const values = {1.5F, -0.0F, 3e38F, 4, 5, 6};
  EXPECT_TRUE(writer->append(std::span<float const>(values)));
  EXPECT_TRUE(writer->append(std::span<float const>(values).first(3)));
  EXPECT_EQ(writer->rows(), 3U);
  ASSERT_TRUE(writer->commit());
  auto const array = read_npy(folder / "x.npy");
  ASSERT_TRUE(array) << array.message();
  EXPECT_EQ(array->type, NpyType::f32);
  EXPECT_EQ(array->shape, (Shape{3, 3}));
  auto const read = array->as<float>();
  EXPECT_EQ(std::vector<float>(read.begin(), read.end()),
            (std::vector<float>{1.5F, -0.0F, 3e38F, 4, 5, 6, 1.5F, 0, 3e38F}));
}

TEST(Npy, WritesSmallIntegersAndNoRows) {
  testing::TempDir const folder;
  auto writer = NpyWriter::create(folder / "x.npy", NpyType::u16, {6, 1});
  ASSERT_TRUE(writer);
  std::vector<std::uint16_t> const row = {0, 1, 65535, 3, 4, 5};
  ASSERT_TRUE(writer->append(std::span<std::uint16_t const>(row)));
  ASSERT_TRUE(writer->commit());
  auto array = read_npy(folder / "x.npy");
  ASSERT_TRUE(array) << array.message();
  EXPECT_EQ(array->shape, (Shape{1, 6, 1}));
  EXPECT_EQ(array->as<std::uint16_t>()[2], 65535);

  auto empty = NpyWriter::create(folder / "y.npy", NpyType::f32, {});
  ASSERT_TRUE(empty);
  ASSERT_TRUE(empty->commit());
  array = read_npy(folder / "y.npy");
  ASSERT_TRUE(array) << array.message();
  EXPECT_EQ(array->shape, (Shape{0}));
}

TEST(Npy, AlignsItsElementsForNumpy) {
  testing::TempDir const folder;
  auto writer = NpyWriter::create(folder / "x.npy", NpyType::u16, Shape(7, 1));
  ASSERT_TRUE(writer);
  ASSERT_TRUE(writer->commit());
  std::string const file = testing::read_file(folder / "x.npy");
  EXPECT_EQ(file.size() % 64, 0U);
  EXPECT_EQ(file.back(), '\n');
}

TEST(Npy, LeavesNothingWithoutCommit) {
  testing::TempDir const folder;
  {
    auto const writer = NpyWriter::create(folder / "x.npy", NpyType::f32, {3});
    ASSERT_TRUE(writer);
  }
  EXPECT_TRUE(folder.names().empty());
}

TEST(Npy, RejectsOtherTypesAndPartsOfRows) {
  testing::TempDir const folder;
  auto writer = NpyWriter::create(folder / "x.npy", NpyType::f32, {3});
  ASSERT_TRUE(writer);
  std::vector<float> const two = {1, 2};
  EXPECT_EQ(writer->append(std::span<float const>(two)).code(), Errc::invalid_argument);
  std::vector<std::int32_t> const ints = {1, 2, 3};
  EXPECT_EQ(writer->append(std::span<std::int32_t const>(ints)).code(), Errc::invalid_argument);
  EXPECT_EQ(NpyWriter::create(folder / "y.npy", NpyType::f32, {3, 0}).code(), Errc::invalid_argument);
  EXPECT_EQ(NpyWriter::create(folder / "none/y.npy", NpyType::f32, {3}).code(), Errc::io);
}

TEST(Npy, ReadsWhatNumpyWrites) {
  auto const bytes =
      parse_npy(bytes_of(npy_file("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2), }", "abcd")), "f");
  ASSERT_TRUE(bytes) << bytes.message();
  EXPECT_EQ(bytes->shape, (Shape{2, 2}));
  auto const ints = parse_npy(bytes_of(npy_file("{'descr': '<i4', 'fortran_order': False, 'shape': (1,), }",
                                                std::string("\xFE\xFF\xFF\xFF", 4), 2)),
                              "f");
  ASSERT_TRUE(ints) << ints.message();
  EXPECT_EQ(ints->as<std::int32_t>()[0], -2);
  auto const scalar =
      parse_npy(bytes_of(npy_file("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "0000")), "f");
  ASSERT_TRUE(scalar) << scalar.message();
  EXPECT_TRUE(scalar->shape.empty());
}

TEST(Npy, RejectsWhatIsMalformed) {
  auto const file = [](std::string const& descr, std::string const& fortran, std::string const& shape) {
    return npy_file("{'descr': " + descr + ", 'fortran_order': " + fortran + ", 'shape': " + shape + ", }", "abcd");
  };
  std::string const good = file("'|u1'", "False", "(4,)");
  ASSERT_TRUE(parse_npy(bytes_of(good), "f"));
  std::vector<std::pair<std::string, Errc>> const cases = {
      {"", Errc::corrupt},
      {"\x93NUMPY", Errc::corrupt},
      {"PK\x03\x04 something else", Errc::corrupt},
      {std::string("\x93NUMPY\x04\0\x10\0", 10) + good, Errc::unsupported},
      {std::string("\x93NUMPY\x02\0\x10\0", 10), Errc::corrupt},
      {std::string("\x93NUMPY\x01\0\xFF\xFF", 10) + "x", Errc::corrupt},
      {good.substr(0, good.size() - 1), Errc::corrupt},
      {good + "x", Errc::corrupt},
      {file("'<f8'", "False", "(4,)"), Errc::unsupported},
      {file("'|O'", "False", "(4,)"), Errc::unsupported},
      {file("'|u1'", "True", "(4,)"), Errc::unsupported},
      {file("'|u1'", "maybe", "(4,)"), Errc::corrupt},
      {file("|u1", "False", "(4,)"), Errc::corrupt},
      {file("'|u1", "False", "(4,)"), Errc::unsupported},
      {file("'|u1'", "False", "(-4,)"), Errc::corrupt},
      {file("'|u1'", "False", "(4"), Errc::corrupt},
      {file("'|u1'", "False", "(4 4)"), Errc::corrupt},
      {file("'|u1'", "False", "(4294967296, 4294967296, 4)"), Errc::corrupt},
      {file("'|u1'", "False", "(18446744073709551616,)"), Errc::corrupt},
      {file("'|u1'", "False", "(1,1,1,1,1,1,1,1,4)"), Errc::corrupt},
      {npy_file("{'descr': '|u1'}", "abcd"), Errc::corrupt},
      {npy_file("", "abcd"), Errc::corrupt},
  };
  for (auto const& [bytes, code] : cases) {
    auto const array = parse_npy(bytes_of(bytes), "f");
    EXPECT_EQ(array.code(), code) << bytes << ": " << array.message();
  }
  EXPECT_EQ(read_npy("/nonexistent.npy").code(), Errc::not_found);
}

TEST(Sha256, MatchesKnownDigests) {
  auto digest = Sha256::create();
  ASSERT_TRUE(digest) << digest.message();
  EXPECT_EQ(digest->hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  digest->update(bytes_of(std::string("a")));
  digest->update(bytes_of(std::string("bc")));
  EXPECT_EQ(digest->hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  digest->update(bytes_of(std::string("")));
  EXPECT_EQ(digest->hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") << "asked twice";
}

}  // namespace
}  // namespace sida::cli
