#include "sida/io/safetensors.hpp"

#include <cstring>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/io/safetensors_builder.hpp"

namespace sida {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::SafetensorsBuilder;
using testing::TempDir;

std::vector<std::string> names_of(TensorSource const& source) {
  std::vector<std::string> names;
  for (TensorInfo const& info : source.tensors()) names.push_back(info.name);
  return names;
}

std::string read(TensorSource const& source, std::string const& name, std::uint64_t offset, std::size_t bytes) {
  std::string text(bytes, '?');
  Status const status = source.read(name, offset, std::as_writable_bytes(std::span(text)));
  return status ? text : status.message();
}

class Safetensors : public ::testing::TestWithParam<ReadPath> {
 protected:
  Result<std::unique_ptr<TensorSource>> open(std::string const& path) { return open_safetensors(path, GetParam()); }
  TempDir folder_;
};

INSTANTIATE_TEST_SUITE_P(Io, Safetensors, ::testing::Values(ReadPath::pread, ReadPath::mmap),
                         [](auto const& instance) { return instance.param == ReadPath::pread ? "pread" : "mmap"; });

TEST_P(Safetensors, ReadsTensorsOfAFile) {
  SafetensorsBuilder().add("b", "U8", {4}, "wxyz").add("a", "U8", {3}, "abc").write(folder_ / "x.safetensors");
  auto const source = open(folder_ / "x.safetensors");
  ASSERT_TRUE(source) << source.message();
  EXPECT_EQ((*source)->path(), folder_ / "x.safetensors");
  EXPECT_THAT(names_of(**source), ::testing::ElementsAre("a", "b"));
  EXPECT_EQ(read(**source, "a", 0, 3), "abc");
  EXPECT_EQ(read(**source, "b", 1, 2), "xy");
  EXPECT_EQ(read(**source, "b", 4, 0), "");
  EXPECT_EQ((*source)->find("b")->size_bytes, 4U);
  EXPECT_EQ((*source)->find("c"), nullptr);
  EXPECT_GT((*source)->read_stats().reads, 3U);
}

TEST_P(Safetensors, RefusesWhatATensorDoesNotHold) {
  SafetensorsBuilder().add("a", "U8", {3}, "abc").add("b", "U8", {4}, "wxyz").write(folder_ / "x.safetensors");
  auto const source = open(folder_ / "x.safetensors");
  ASSERT_TRUE(source) << source.message();
  std::vector<std::byte> dst(4);
  EXPECT_EQ((*source)->read("c", 0, dst).code(), Errc::not_found);
  EXPECT_EQ((*source)->read("a", 0, dst).code(), Errc::invalid_argument);
  EXPECT_EQ((*source)->read("a", 4, {}).code(), Errc::invalid_argument);
  EXPECT_EQ((*source)->read("a", ~std::uint64_t{0}, dst).code(), Errc::invalid_argument);
}

TEST_P(Safetensors, OpensAFolderWithOneFile) {
  SafetensorsBuilder().add("a", "U8", {3}, "abc").write(folder_ / "model.safetensors");
  auto const source = open(folder_.path());
  ASSERT_TRUE(source) << source.message();
  EXPECT_EQ(read(**source, "a", 0, 3), "abc");
}

TEST_P(Safetensors, OpensAShardedFolder) {
  testing::write_sharded(
      folder_,
      {{"model-1.safetensors", SafetensorsBuilder().add("a", "U8", {3}, "abc").add("c", "U8", {1}, "c")},
       {"model-2.safetensors", SafetensorsBuilder().add("b", "U8", {2}, "bb").add("a", "U8", {1}, "?")}},
      {{"a", "model-1.safetensors"}, {"b", "model-2.safetensors"}, {"c", "model-1.safetensors"}});
  auto const source = open(folder_.path());
  ASSERT_TRUE(source) << source.message();
  EXPECT_THAT(names_of(**source), ::testing::ElementsAre("a", "b", "c"));
  EXPECT_EQ(read(**source, "a", 0, 3), "abc");  // the index decides which one
  EXPECT_EQ(read(**source, "b", 0, 2), "bb");
  EXPECT_EQ(read(**source, "c", 0, 1), "c");
}

TEST_P(Safetensors, AbsentPathsAreNotFound) {
  EXPECT_EQ(open(folder_ / "absent.safetensors").code(), Errc::not_found);
  auto const empty = open(folder_.path());
  EXPECT_EQ(empty.code(), Errc::not_found);
  EXPECT_THAT(empty.message(), HasSubstr("model.safetensors.index.json"));
}

TEST_P(Safetensors, AMissingShardIsNotFound) {
  testing::write_sharded(folder_, {}, {{"a", "gone.safetensors"}});
  auto const source = open(folder_.path());
  EXPECT_EQ(source.code(), Errc::not_found);
  EXPECT_THAT(source.message(), AllOf(HasSubstr("index.json"), HasSubstr("'a'"), HasSubstr("gone.safetensors")));
}

TEST_P(Safetensors, ADamagedShardIsNamed) {
  testing::write_sharded(folder_, {}, {{"a", "s.safetensors"}});
  testing::write_file(folder_ / "s.safetensors", "damaged");
  auto const source = open(folder_.path());
  EXPECT_EQ(source.code(), Errc::corrupt);
  EXPECT_THAT(source.message(), HasSubstr(folder_ / "s.safetensors"));
}

TEST_P(Safetensors, AnIndexThatNamesWhatItsShardLacksIsCorrupt) {
  testing::write_sharded(folder_, {{"s.safetensors", SafetensorsBuilder().add("a", "U8", {1}, "a")}},
                         {{"a", "s.safetensors"}, {"b", "s.safetensors"}});
  auto const source = open(folder_.path());
  EXPECT_EQ(source.code(), Errc::corrupt);
  EXPECT_THAT(source.message(), AllOf(HasSubstr("index.json"), HasSubstr("'b'"), HasSubstr("'s.safetensors'")));
}

TEST_P(Safetensors, AMalformedIndexIsCorrupt) {
  struct Case {
    std::string index;
    char const* why;
  };
  SafetensorsBuilder().add("a", "U8", {1}, "a").write(folder_ / "s.safetensors");
  for (Case const& c :
       {Case{"", "byte 0"}, Case{"[]", "not an object"}, Case{"{}", "no weight_map"},
        Case{R"({"weight_map": []})", "not an object"}, Case{R"({"weight_map": {"a": 3}})", "not a string"},
        Case{R"({"weight_map": {"a": ""}})", "no file name"},
        Case{R"({"weight_map": {"a": "../s.safetensors"}})", "no file name"},
        Case{R"({"weight_map": {"a": "/etc/passwd"}})", "no file name"},
        Case{R"({"weight_map": {"a": "sub/s.safetensors"}})", "no file name"},
        Case{R"({"weight_map": {"a": "sub\\s.safetensors"}})", "no file name"},
        Case{R"({"weight_map": {"a": "s\u0000"}})", "no file name"},
        Case{R"({"weight_map": {"a": ".."}})", "no file name"},
        Case{R"({"weight_map": {"a": "s.safetensors", "a": "s.safetensors"}})", "twice"},
        Case{R"({"weight_map": {"a": "s.safetensors"}, "weight_map": {}})", "twice"}}) {
    testing::write_file(folder_ / "model.safetensors.index.json", c.index);
    auto const source = open(folder_.path());
    ASSERT_FALSE(source) << c.index;
    EXPECT_EQ(source.code(), Errc::corrupt) << source.message();
    EXPECT_THAT(source.message(),
                AllOf(HasSubstr("model.safetensors.index.json"), HasSubstr("byte"), HasSubstr(c.why)));
  }
}

}  // namespace
}  // namespace sida
