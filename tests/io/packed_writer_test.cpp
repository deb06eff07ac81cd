#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/stat.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sida/io/packed.hpp"
#include "tests/io/tiny_checkpoint.hpp"
#include "tests/support/fault_source.hpp"

namespace sida {
namespace {

using ::testing::HasSubstr;
using testing::TinyCheckpoint;
using ::testing::UnorderedElementsAre;

class WritePacked : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(folder_);
    testing::write_file(target_, "what was there before");
  }
  PackInput input() const { return checkpoint_.pack_input(*dense_, *experts_); }
  /// The target as it was, and nothing beside it.
  void expect_untouched() const {
    EXPECT_EQ(testing::read_file(target_), "what was there before");
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
  }

  TinyCheckpoint checkpoint_;
  std::shared_ptr<TensorSource const> dense_ = checkpoint_.tensors();
  std::shared_ptr<ExpertSource const> experts_ = checkpoint_.experts();
  std::string folder_ = checkpoint_.folder / "target";
  std::string target_ = folder_ + "/model.sida";
};

TEST_F(WritePacked, ReplacesAFileAndReportsProgressToTheEnd) {
  PackInput pack = input();
  std::uint64_t last = 0;
  std::uint64_t total = 0;
  pack.progress = [&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
    EXPECT_GE(done_bytes, last);
    EXPECT_TRUE(total == 0 || total == total_bytes);
    last = done_bytes;
    total = total_bytes;
  };
  Status const status = write_packed(target_, pack);
  ASSERT_TRUE(status) << status.message();
  EXPECT_EQ(last, total);
  EXPECT_GT(total, 9 * checkpoint_.layout.size_bytes);
  EXPECT_TRUE(PackedFile::open(target_, ReadPath::pread));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(WritePacked, TellsItsTemporaryFileBeforeTheWork) {
  PackInput pack = input();
  std::string temporary;
  pack.started = [&](std::string const& name) {
    temporary = name;
    EXPECT_TRUE(std::filesystem::is_regular_file(name));
  };
  pack.progress = [&](std::uint64_t, std::uint64_t) { EXPECT_FALSE(temporary.empty()); };
  ASSERT_TRUE(write_packed(target_, pack));
  EXPECT_EQ(std::filesystem::path(temporary).parent_path(), folder_);
  EXPECT_FALSE(std::filesystem::exists(temporary));
}

TEST_F(WritePacked, AnOpenReaderKeepsTheOldContainer) {
  ASSERT_TRUE(write_packed(target_, input()));
  auto const old = *PackedFile::open(target_, ReadPath::pread);
  PackInput pack = input();
  pack.dense_names = {"norm"};
  ASSERT_TRUE(write_packed(target_, pack));
  std::vector<std::byte> dst(2'600'000);
  EXPECT_TRUE(old->dense().read("embed", 0, dst));
  EXPECT_EQ((*PackedFile::open(target_, ReadPath::pread))->dense().tensors().size(), 1U);
}

TEST_F(WritePacked, CancelledAtAnyPointLeavesTheTargetAlone) {
  for (int allowed = 0; allowed < 100; ++allowed) {
    PackInput pack = input();
    int asked = 0;
    pack.cancelled = [&] { return asked++ == allowed; };
    Status const status = write_packed(target_, pack);
    if (status) {
      EXPECT_GT(allowed, 10);
      return;
    }
    EXPECT_EQ(status.code(), Errc::cancelled);
    expect_untouched();
  }
  FAIL() << "never finished";
}

TEST_F(WritePacked, AnErrorOfTheSourceLeavesTheTargetAlone) {
  for (testing::Fault const fault : {testing::Fault::fails, testing::Fault::short_read, testing::Fault::wrong_bytes}) {
    testing::FaultSource faulty(*experts_);
    faulty.fault_call(4, fault);
    PackInput pack = input();
    pack.experts = &faulty;
    Status const status = write_packed(target_, pack);
    EXPECT_EQ(status.code(), fault == testing::Fault::wrong_bytes ? Errc::corrupt : Errc::io);
    EXPECT_THAT(status.message(), HasSubstr("layer 2 expert 0"));
    expect_untouched();
  }
}

TEST_F(WritePacked, AnExceptionOfACallbackLeavesTheTargetAlone) {
  PackInput pack = input();
  pack.progress = [](std::uint64_t done_bytes, std::uint64_t) {
    if (done_bytes > 10'000) throw std::runtime_error("user code");
  };
  EXPECT_THROW((void)write_packed(target_, pack), std::runtime_error);
  expect_untouched();
}

TEST_F(WritePacked, UnusableTargetsAreErrors) {
  struct Case {
    std::string path;
    Errc code;
  };
  for (Case const& c :
       {Case{"", Errc::invalid_argument}, Case{folder_ + "/absent/x.sida", Errc::not_found},
        Case{target_ + "/x.sida", Errc::not_found}, Case{"/proc/x.sida", Errc::io}, Case{folder_, Errc::io}}) {
    Status const status = write_packed(c.path, input());
    EXPECT_EQ(status.code(), c.code) << c.path << ": " << status.message();
    EXPECT_THAT(status.message(), HasSubstr(c.path));
  }
  expect_untouched();
  EXPECT_THAT(checkpoint_.folder.names(), UnorderedElementsAre("model.safetensors", "target"));
}

TEST_F(WritePacked, OnlyARegularFileIsReplaced) {
  std::string const pipe = checkpoint_.folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::filesystem::create_symlink("pipe", checkpoint_.folder / "link");
  PackInput pack = input();
  pack.progress = [](std::uint64_t, std::uint64_t) { ADD_FAILURE() << "refused after the work has begun"; };
  for (std::string const& path : {pipe, checkpoint_.folder / "link", std::string("/dev/stdout"), folder_}) {
    Status const status = write_packed(path, pack);
    EXPECT_EQ(status.code(), Errc::io) << path;
    EXPECT_THAT(status.message(), HasSubstr(path));
  }
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
}

TEST_F(WritePacked, ALinkStaysAndLeadsToTheNewContainer) {
  std::string const link = checkpoint_.folder / "link";
  std::filesystem::create_symlink("target/model.sida", link);
  ASSERT_TRUE(write_packed(link, input()));
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_TRUE(PackedFile::open(target_, ReadPath::pread));
}

TEST_F(WritePacked, InputsThatDoNotFitAreRefusedBeforeAnythingIsWritten) {
  struct Case {
    std::function<void(PackInput&)> spoil;
    Errc code;
    char const* why;
  };
  testing::PatternSource const other({1}, 64);
  for (Case const& c :
       {Case{[](PackInput& p) { p.experts = nullptr; }, Errc::invalid_argument, "no source of experts"},
        Case{[](PackInput& p) { p.dense = nullptr; }, Errc::invalid_argument, "no source of dense"},
        Case{[](PackInput& p) { p.dense_names.emplace_back("absent"); }, Errc::not_found, "'absent'"},
        Case{[](PackInput& p) { p.dense_names.emplace_back("norm"); }, Errc::invalid_argument, "'norm' is named twice"},
        Case{[](PackInput& p) { p.layout.shape.d_ff = 0; }, Errc::invalid_argument, "d_ff"},
        Case{[](PackInput& p) { p.config_json.resize((16 << 20) + 1); }, Errc::invalid_argument, "config"},
        Case{[&](PackInput& p) { p.experts = &other; }, Errc::invalid_argument, "64 bytes"}}) {
    PackInput pack = input();
    c.spoil(pack);
    Status const status = write_packed(target_, pack);
    EXPECT_EQ(status.code(), c.code) << status.message();
    EXPECT_THAT(status.message(), HasSubstr(c.why));
    expect_untouched();
  }
}

TEST_F(WritePacked, PacksAContainerWithoutDenseTensorsOrTokenizer) {
  PackInput pack = input();
  pack.dense = nullptr;
  pack.dense_names.clear();
  pack.tokenizer.clear();
  pack.config_json.clear();
  ASSERT_TRUE(write_packed(target_, pack));
  auto const packed = PackedFile::open(target_, ReadPath::mmap);
  ASSERT_TRUE(packed) << packed.message();
  EXPECT_TRUE((*packed)->dense().tensors().empty());
  EXPECT_TRUE((*packed)->tokenizer().empty());
}

TEST_F(WritePacked, GivesARelativePathItsFolder) {
  auto const before = std::filesystem::current_path();
  std::filesystem::current_path(folder_);
  Status const status = write_packed("bare.sida", input());
  std::filesystem::current_path(before);
  EXPECT_TRUE(status) << status.message();
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/bare.sida"));
}

}  // namespace
}  // namespace sida
