#include <cstring>
#include <ostream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sida/io/safetensors.hpp"
#include "tests/io/safetensors_builder.hpp"

namespace sida {
namespace {

using ::testing::HasSubstr;
using testing::safetensors_bytes;
using testing::SafetensorsBuilder;

Result<SafetensorsHeader> parse(std::string const& file) {
  return parse_safetensors_header(std::as_bytes(std::span(file)), file.size(), "m.safetensors");
}

TEST(SafetensorsHeader, ListsTensorsByNameWithTheirPlace) {
  std::string const file = SafetensorsBuilder()
                               .metadata({{"format", "pt"}})
                               .add<float>("z", "F32", {2, 1}, {1.0F, 2.0F})
                               .add<std::uint16_t>("a", "BF16", {3}, {1, 2, 3})
                               .add("empty", "I64", {4, 0}, "")
                               .add<std::uint8_t>("scalar", "U8", {}, {7})
                               .bytes();
  auto const header = parse(file);
  ASSERT_TRUE(header) << header.message();
  ASSERT_EQ(header->entries.size(), 4U);
  EXPECT_EQ(header->metadata.at("format"), "pt");
  auto const& a = header->entries[0];
  EXPECT_EQ(a.info.name, "a");
  EXPECT_EQ(a.info.dtype_name, "BF16");
  EXPECT_EQ(*a.info.dtype(), Dtype::bf16);
  EXPECT_THAT(a.info.shape, ::testing::ElementsAre(3));
  EXPECT_EQ(a.info.size_bytes, 6U);
  std::uint16_t second = 0;
  std::memcpy(&second, file.data() + a.file_offset + 2, 2);
  EXPECT_EQ(second, 2);
  EXPECT_EQ(header->entries[1].info.size_bytes, 0U);
  EXPECT_EQ(header->entries[2].info.name, "scalar");
  EXPECT_EQ(header->entries[2].info.size_bytes, 1U);
  EXPECT_EQ(header->entries[3].info.name, "z");
  EXPECT_EQ(header->entries[1].info.dtype(), std::nullopt);
}

TEST(SafetensorsHeader, KnowsTheSizesOfAllTypes) {
  struct Type {
    char const* name;
    std::size_t bytes_of_eight;
  };
  for (Type const& type :
       {Type{"F64", 64}, {"F32", 32},        {"F16", 16},        {"BF16", 16},   {"F8_E4M3", 8}, {"F8_E5M2", 8},
        {"F8_E8M0", 8},  {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
        {"I64", 64},     {"I32", 32},        {"I16", 16},        {"I8", 8},      {"U64", 64},    {"U32", 32},
        {"U16", 16},     {"U8", 8},          {"BOOL", 8},        {"C64", 64}}) {
    auto const header =
        parse(SafetensorsBuilder().add("t", type.name, {8}, std::string(type.bytes_of_eight, 'x')).bytes());
    EXPECT_TRUE(header) << header.message();
  }
}

TEST(SafetensorsHeader, AcceptsAFileWithoutTensors) {
  auto const header = parse(safetensors_bytes("{}", ""));
  ASSERT_TRUE(header) << header.message();
  EXPECT_TRUE(header->entries.empty());
}

TEST(SafetensorsHeader, IgnoresUnknownFieldsAsTheReferenceDoes) {
  EXPECT_TRUE(parse(safetensors_bytes(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"extra":{}}})", "x")));
}

TEST(SafetensorsHeader, WantsTheWholeHeaderFromItsCaller) {
  std::string const file = SafetensorsBuilder().add("t", "U8", {1}, "x").bytes();
  auto const header = parse_safetensors_header(std::as_bytes(std::span(file)).first(20), file.size(), "m.safetensors");
  EXPECT_EQ(header.code(), Errc::invalid_argument);
}

struct BadHeader {
  char const* label;
  std::string file;
  Errc code;
  std::vector<std::string> in_message;
};
void PrintTo(BadHeader const& bad, std::ostream* out) { *out << bad.label; }

/// A file with one tensor "t", described by `fields`, over `data_bytes` bytes of data.
std::string one(std::string const& fields, std::size_t data_bytes) {
  return safetensors_bytes(R"({"t":{)" + fields + "}}", std::string(data_bytes, 'x'));
}
std::string length_only(std::uint64_t length, std::string const& rest = "{}") {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + rest;
}

std::vector<BadHeader> bad_headers() {
  auto const corrupt = Errc::corrupt;
  std::string const t = "tensor 't' (header byte 12)";
  std::string const two = R"("dtype":"U8","shape":[2],"data_offsets":)";
  std::string const gap =
      R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":)";
  return {
      {"empty_file", "", corrupt, {"0 bytes"}},
      {"seven_bytes", "1234567", corrupt, {"7 bytes"}},
      {"length_past_the_file", length_only(3), corrupt, {"header of 3 bytes", "byte 8", "file's 10 bytes"}},
      {"length_over_100_mb", length_only(100'000'001), corrupt, {"100000001", "byte 8"}},
      {"length_of_all_ones", length_only(~std::uint64_t{0}), corrupt, {"18446744073709551615", "byte 8"}},
      {"empty_header", length_only(0), corrupt, {"byte 8", "'{'"}},
      {"space_first", safetensors_bytes(" {}", ""), corrupt, {"byte 8", "'{'"}},
      {"array", safetensors_bytes("[]", ""), corrupt, {"byte 8", "'{'"}},
      {"truncated_json", safetensors_bytes(R"({"t":)", ""), corrupt, {"JSON byte 5"}},
      {"text_after_json", safetensors_bytes("{} x", ""), corrupt, {"JSON byte 4"}},
      {"nul_padding", safetensors_bytes(std::string("{}\0\0", 4), ""), corrupt, {"JSON byte 2"}},
      {"twice",
       safetensors_bytes(R"({"t":{)" + two + R"([0,2]},"t":{)" + two + "[2,4]}}", "xxxx"),
       corrupt,
       {"'t' occurs twice", "JSON byte"}},
      {"too_deep", one(R"("x":)" + std::string(20, '['), 0), corrupt, {"deeper than 16", "JSON byte"}},
      {"tensor_is_a_number", safetensors_bytes(R"({"t":3})", ""), corrupt, {t, "not an object"}},
      {"no_dtype", one(R"("shape":[2],"data_offsets":[0,2])", 2), corrupt, {t, "dtype"}},
      {"dtype_is_a_number", one(R"("dtype":8,"shape":[2],"data_offsets":[0,2])", 2), corrupt, {t, "dtype"}},
      {"unknown_dtype", one(R"("dtype":"Q4","shape":[2],"data_offsets":[0,1])", 1), Errc::unsupported, {t, "'Q4'"}},
      {"no_shape", one(R"("dtype":"U8","data_offsets":[0,2])", 2), corrupt, {t, "shape"}},
      {"shape_is_an_object", one(R"("dtype":"U8","shape":{},"data_offsets":[0,2])", 2), corrupt, {t, "shape"}},
      {"negative_dimension", one(R"("dtype":"U8","shape":[-2],"data_offsets":[0,2])", 2), corrupt, {t, "negative"}},
      {"fractional_dimension",
       one(R"("dtype":"U8","shape":[2.5],"data_offsets":[0,2])", 2),
       corrupt,
       {t, "not an integer"}},
      {"float_dimension", one(R"("dtype":"U8","shape":[2.0],"data_offsets":[0,2])", 2), corrupt, {t, "not an integer"}},
      {"dimension_over_64_bits",
       one(R"("dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,2])", 2),
       corrupt,
       {t, "out of range"}},
      {"dimension_over_63_bits",
       one(R"("dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,2])", 2),
       corrupt,
       {t, "out of range"}},
      {"size_overflows",
       one(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,2])", 2),
       corrupt,
       {t, "overflows"}},
      {"size_in_bits_overflows",
       one(R"("dtype":"F64","shape":[1152921504606846976],"data_offsets":[0,2])", 2),
       corrupt,
       {t, "overflows"}},
      {"many_dimensions",
       one(R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1])",
           1),
       Errc::unsupported,
       {t, "33 dimensions"}},
      {"half_a_byte",
       one(R"("dtype":"F4","shape":[3],"data_offsets":[0,1])", 1),
       corrupt,
       {t, "whole number of bytes"}},
      {"no_offsets", one(R"("dtype":"U8","shape":[2])", 2), corrupt, {t, "data_offsets"}},
      {"one_offset", one(two + "[0]", 2), corrupt, {t, "data_offsets"}},
      {"three_offsets", one(two + "[0,2,2]", 2), corrupt, {t, "data_offsets"}},
      {"negative_offset", one(two + "[-1,1]", 2), corrupt, {t, "negative"}},
      {"fractional_offset", one(two + "[0,2.5]", 2), corrupt, {t, "not an integer"}},
      {"offset_over_64_bits", one(two + "[0,99999999999999999999]", 2), corrupt, {t, "out of range"}},
      {"offset_is_a_string", one(two + R"([0,"2"])", 2), corrupt, {t, "string"}},
      {"offsets_backwards", one(two + "[2,0]", 2), corrupt, {t, "backwards"}},
      {"offsets_past_the_file", one(two + "[0,3]", 2), corrupt, {t, "[0, 3]", "2 bytes of data"}},
      {"truncated_data", one(two + "[0,2]", 1), corrupt, {t, "1 bytes of data"}},
      {"size_differs",
       one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])", 4),
       corrupt,
       {t, "F32 of shape [2] takes 8 bytes", "give 4"}},
      {"gap_in_front", one(two + "[1,3]", 3), corrupt, {t, "a gap after 0"}},
      {"gap", safetensors_bytes(gap + "[3,5]}}", "xxxxx"), corrupt, {"tensor 'b'", "a gap after 2"}},
      {"overlap", safetensors_bytes(gap + "[1,3]}}", "xxx"), corrupt, {"tensor 'b'", "an overlap before 2"}},
      {"same_bytes_twice", safetensors_bytes(gap + "[0,2]}}", "xx"), corrupt, {"an overlap before 2"}},
      {"bytes_left_over", one(two + "[0,2]", 3), corrupt, {"cover 2 of 3 bytes", "start at byte 61"}},
      {"metadata_is_a_list",
       safetensors_bytes(R"({"__metadata__":[]})", ""),
       corrupt,
       {"__metadata__", "header byte 23"}},
      {"metadata_of_numbers", safetensors_bytes(R"({"__metadata__":{"a":1}})", ""), corrupt, {"__metadata__", "'a'"}},
      {"control_characters_in_a_name", safetensors_bytes("{\"\\u001b[2J\":3}", ""), corrupt, {"'\\x1b[2J'"}},
  };
}

class MalformedSafetensors : public ::testing::TestWithParam<BadHeader> {};

TEST_P(MalformedSafetensors, IsRefusedWithFileTensorAndPlace) {
  BadHeader const& bad = GetParam();
  auto const header = parse(bad.file);
  ASSERT_FALSE(header);
  EXPECT_EQ(header.code(), bad.code) << header.message();
  EXPECT_THAT(header.message(), HasSubstr("m.safetensors"));
  for (std::string const& text : bad.in_message) EXPECT_THAT(header.message(), HasSubstr(text));
  EXPECT_LT(header.message().size(), 600U);
}

TEST_P(MalformedSafetensors, IsRefusedFromDiskAsWell) {
  testing::TempDir const folder;
  testing::write_file(folder / "m.safetensors", GetParam().file);
  for (ReadPath const path : {ReadPath::pread, ReadPath::mmap}) {
    auto const source = open_safetensors(folder / "m.safetensors", path);
    ASSERT_FALSE(source);
    EXPECT_EQ(source.code(), GetParam().code) << source.message();
    EXPECT_THAT(source.message(), HasSubstr(folder / "m.safetensors"));
  }
}

INSTANTIATE_TEST_SUITE_P(Safetensors, MalformedSafetensors, ::testing::ValuesIn(bad_headers()),
                         [](auto const& instance) { return std::string(instance.param.label); });

TEST(SafetensorsHeader, EveryPrefixOfAFileIsRefused) {
  std::string const file = SafetensorsBuilder().add("a", "U8", {2}, "xy").add("b", "F32", {1}, "wxyz").bytes();
  for (std::size_t size = 0; size < file.size(); ++size) EXPECT_FALSE(parse(file.substr(0, size))) << size;
  EXPECT_TRUE(parse(file));
}

TEST(SafetensorsHeader, NoByteOfTheHeaderCanBreakTheParser) {
  std::string const file = SafetensorsBuilder().add("a", "U8", {2}, "xy").add("b", "F32", {1}, "wxyz").bytes();
  for (std::size_t at = 0; at < file.size(); ++at) {
    for (int const value : {0x00, 0x20, 0x22, 0x2C, 0x2D, 0x30, 0x39, 0x5B, 0x7B, 0x7D, 0x80, 0xFF}) {
      std::string changed = file;
      changed[at] = static_cast<char>(value);
      (void)parse(changed).status();  // any answer will do
    }
  }
}

}  // namespace
}  // namespace sida
