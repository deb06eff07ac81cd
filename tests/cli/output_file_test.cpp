#include "cli/output_file.hpp"

#include <array>
#include <csignal>
#include <cstddef>
#include <fcntl.h>
#include <filesystem>
#include <string>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cli/interrupt.hpp"
#include "cli/npy.hpp"
#include "io/file_descriptor.hpp"
#include "tests/io/temp_dir.hpp"

namespace sida::cli {
namespace {

namespace fs = std::filesystem;
using io_detail::FileDescriptor;

class OutputFileTest : public ::testing::Test {
 protected:
  /// Writes `text` to `path` and commits.
  static Status put(std::string const& path, std::string_view text) {
    auto file = OutputFile::create(path);
    if (!file) return file.status();
    if (Status status = file->write(text); !status) return status;
    return file->commit();
  }
  FileDescriptor open(std::string const& name, int flags) const {
    return FileDescriptor(::open((folder / name).c_str(), flags | O_CREAT | O_CLOEXEC, 0600));
  }
  static std::string name_of(FileDescriptor const& file) { return "/dev/fd/" + std::to_string(file.get()); }

  testing::TempDir folder;
};

TEST_F(OutputFileTest, AppearsWhole) {
  testing::write_file(folder / "f", "old");
  {
    auto file = OutputFile::create(folder / "f");
    ASSERT_TRUE(file) << file.message();
    ASSERT_TRUE(file->write("half"));
  }
  EXPECT_EQ(testing::read_file(folder / "f"), "old");
  EXPECT_EQ(folder.names().size(), 1U);
  ASSERT_TRUE(put(folder / "f", "new"));
  EXPECT_EQ(testing::read_file(folder / "f"), "new");
  EXPECT_EQ(folder.names().size(), 1U);
}

TEST_F(OutputFileTest, IsAsOpenAsTheFileThatItReplaces) {
  testing::write_file(folder / "f", "old");
  for (auto const mode : {fs::perms::owner_read | fs::perms::owner_write, fs::perms::all}) {
    fs::permissions(folder / "f", mode);
    ASSERT_TRUE(put(folder / "f", "new"));
    EXPECT_EQ(fs::status(folder / "f").permissions(), mode);
  }
}

TEST_F(OutputFileTest, FinishesBeforeItIsPublished) {
  auto file = OutputFile::create(folder / "f");
  ASSERT_TRUE(file && file->write("text"));
  ASSERT_TRUE(file->finish());
  EXPECT_FALSE(fs::exists(folder / "f"));
  ASSERT_TRUE(file->publish());
  EXPECT_EQ(testing::read_file(folder / "f"), "text");
  auto full = OutputFile::create("/dev/full");
  ASSERT_TRUE(full && full->write("text"));
  EXPECT_EQ(full->finish().code(), Errc::io);
}

TEST_F(OutputFileTest, FollowsLinks) {
  fs::create_directory(folder / "there");
  testing::write_file(folder / "there/f", "old");
  fs::create_symlink("there/f", folder / "link");
  fs::create_symlink(folder / "link", folder / "link to link");
  fs::create_symlink("there/absent", folder / "link to nothing");
  ASSERT_TRUE(put(folder / "link to link", "new"));
  ASSERT_TRUE(put(folder / "link to nothing", "first"));
  EXPECT_TRUE(fs::is_symlink(folder / "link") && fs::is_symlink(folder / "link to link"));
  EXPECT_EQ(testing::read_file(folder / "there/f"), "new");
  EXPECT_EQ(testing::read_file(folder / "there/absent"), "first");
  fs::create_symlink("circle", folder / "circle");
  EXPECT_EQ(put(folder / "circle", "").code(), Errc::io);
}

TEST_F(OutputFileTest, TakesNamesAsLongAsTheyCanBe) {
  for (std::size_t const length : {250, 255}) {
    Status const status = put(folder / std::string(length, 'x'), "text");
    EXPECT_TRUE(status) << status.message();
  }
  EXPECT_EQ(put(folder / std::string(256, 'x'), "text").code(), Errc::io);
}

TEST_F(OutputFileTest, WritesPipesAndDevicesDirectly) {
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  FileDescriptor const reader = open("pipe", O_RDWR);
  fs::create_symlink("pipe", folder / "link");
  ASSERT_TRUE(put(folder / "pipe", "one"));
  ASSERT_TRUE(put(folder / "link", "two"));
  char text[6];
  ASSERT_EQ(::read(reader.get(), text, sizeof text), 6);
  EXPECT_EQ(std::string(text, sizeof text), "onetwo");
  EXPECT_TRUE(fs::is_fifo(folder / "pipe"));
  EXPECT_TRUE(put("/dev/null", "text"));
  EXPECT_EQ(put(folder.path(), "text").code(), Errc::io);
}

TEST_F(OutputFileTest, WritesThroughAnOpenDescriptor) {
  FileDescriptor const file = open("f", O_RDWR);
  fs::create_symlink(name_of(file), folder / "link");
  ASSERT_EQ(::write(file.get(), "before ", 7), 7);
  ASSERT_TRUE(put(folder / "link", "text"));
  ASSERT_EQ(::write(file.get(), " after", 6), 6);
  EXPECT_EQ(testing::read_file(folder / "f"), "before text after");
}

TEST_F(OutputFileTest, OverwritesWhereTheFileHasOffsets) {
  FileDescriptor const file = open("f", O_RDWR);
  ASSERT_EQ(::write(file.get(), "1234", 4), 4);
  auto through = OutputFile::create(name_of(file));
  ASSERT_TRUE(through && through->can_overwrite() && through->write("abcd"));
  ASSERT_TRUE(through->overwrite(1, std::as_bytes(std::span("X", 1))));
  ASSERT_TRUE(through->commit());
  EXPECT_EQ(testing::read_file(folder / "f"), "1234aXcd");
  auto const appending = OutputFile::create(name_of(open("f", O_WRONLY | O_APPEND)));
  EXPECT_FALSE(appending && appending->can_overwrite());
}

TEST_F(OutputFileTest, IsWrittenOnceUnderWhateverNames) {
  fs::create_directory(folder / "there");
  fs::create_directory_symlink("there", folder / "link");
  fs::create_symlink("there/x", folder / "link to x");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  FileDescriptor const file = open("f", O_RDWR);
  struct Case {
    std::string a, b;
    bool is_apart;
  };
  for (Case const& c :
       {Case{"there/x", "there/x", false}, Case{"there/x", "there/./x", false}, Case{"there/x", "link/x", false},
        Case{"there/x", "link to x", false}, Case{"there/x", "there/../there//x", false}, Case{"f", "link/../f", false},
        Case{"none/x", "none/x", false}, Case{"there/x", "there/y", true}, Case{"there/x", "x", true},
        Case{"none/x", "x", true}, Case{"pipe", "pipe", true}, Case{"x", "", true}}) {
    std::string const b = c.b.empty() ? c.b : folder / c.b;
    Status const status = require_apart(std::array{folder / c.a, b}, {});
    EXPECT_EQ(status.code(), c.is_apart ? Errc::ok : Errc::invalid_argument) << c.a << ", " << c.b;
  }
  EXPECT_TRUE(require_apart(std::array<std::string, 2>{"/dev/null", "/dev/null"}, {}));
  EXPECT_TRUE(require_apart(std::array{name_of(file), name_of(file)}, {}));
  EXPECT_FALSE(require_apart(std::array{name_of(file), folder / "f"}, {})) << "the one replaces the other's file";
  Status const status = require_apart(std::array<std::string, 2>{"x", "./x"}, {});
  EXPECT_EQ(status.message(), "./x: is to be written twice, also as x");
}

TEST_F(OutputFileTest, IsNoArrayWhereItCannotOverwrite) {
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  FileDescriptor const reader = open("pipe", O_RDWR);
  auto const writer = NpyWriter::create(folder / "pipe", NpyType::f32, {1});
  EXPECT_EQ(writer.code(), Errc::io);
  EXPECT_NE(writer.message().find("pipe: "), std::string::npos) << writer.message();
}

TEST_F(OutputFileTest, LeavesNothingBehindASecondSignal) {
  std::string const path = folder / "x";
  pid_t const child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Interrupt const interrupt;
    auto file = OutputFile::create(path);
    auto moved = OutputFile::create(path + "2");
    if (!file || !moved || !moved->commit()) ::_exit(1);
    *moved = *std::move(file);
    std::raise(SIGINT);
    std::raise(SIGTERM);
    ::_exit(2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) << status;
  EXPECT_EQ(folder.names(), std::vector<std::string>{"x2"});
}

}  // namespace
}  // namespace sida::cli
