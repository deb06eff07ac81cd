#include "cli/dataset.hpp"

#include <csignal>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "io/file_descriptor.hpp"
#include "tests/io/temp_dir.hpp"

namespace sida::cli {
namespace {

/// A row as one line: texts split by '|', or ids by ' '; then "=label".
std::string show(Row const& row) {
  std::string text = row.text_a;
  if (row.text_b) text += "|" + *row.text_b;
  if (row.ids) {
    for (auto const id : *row.ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  }
  if (row.label) text += "=" + std::to_string(*row.label);
  return text;
}

/// All rows, or the message of the first failure as the last one.
std::vector<std::string> read_all(Result<Dataset> dataset) {
  if (!dataset) return {dataset.message()};
  std::vector<std::string> rows;
  for (;;) {
    auto const row = dataset->next();
    if (!row) {
      rows.push_back(row.message());
      EXPECT_FALSE(dataset->next() && *dataset->next()) << "rows after an error";
      return rows;
    }
    if (!*row) return rows;
    rows.push_back(show(**row));
  }
}

std::vector<std::string> read_bytes(std::string const& bytes) { return read_all(Dataset::from_bytes(bytes, "f")); }

using Rows = std::vector<std::string>;

TEST(Dataset, ReadsTsv) {
  EXPECT_EQ(read_bytes("sentence\tlabel\na film \t1\nbad\t0\n"), (Rows{"a film =1", "bad=0"}));
  EXPECT_EQ(read_bytes("label\tsentence\n7\tx"), (Rows{"x=7"})) << "any order, no end of line";
  EXPECT_EQ(read_bytes("sentence\none\ntwo\n"), (Rows{"one", "two"})) << "no label";
  EXPECT_EQ(read_bytes("idx\tsentence1\tsentence2\tlabel\n3\ta\tb\t1023\n"), (Rows{"a|b=1023"}));
  EXPECT_EQ(read_bytes("sentence\n\"quoted\n'x\n"), (Rows{"\"quoted", "'x"})) << "quotes are text";
  EXPECT_EQ(read_bytes("sentence\tlabel\n\t1\n"), (Rows{"=1"})) << "an empty text";
}

TEST(Dataset, ReadsTheColumnsOfMrpc) {
  EXPECT_EQ(read_bytes("\xEF\xBB\xBFQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t5\t6\tHe \" said\tShe\r\n"),
            (Rows{"He \" said|She=1"}));
}

TEST(Dataset, TakesOffByteOrderMarksAndCarriageReturns) {
  EXPECT_EQ(read_bytes("\xEF\xBB\xBFsentence\r\na\r\nb\r\n"), (Rows{"a", "b"}));
  EXPECT_EQ(read_bytes("\xEF\xBB\xBF{\"ids\": [1]}\r\n"), (Rows{"1"}));
  EXPECT_EQ(read_bytes("sentence\n\xEF\xBB\xBFx\n"), (Rows{"\xEF\xBB\xBFx"})) << "only at the start of the file";
}

TEST(Dataset, TakesUtf8AndNothingElseForText) {
  std::string const last = "z\u00E9\u20AC\uD7FF\uE000\U0001F600\U0010FFFF";
  EXPECT_EQ(read_bytes("sentence\n" + last + "\n"), Rows{last});
  std::vector<std::string> const wrong = {"\xFF\xFE",
                                          "\x80",
                                          "\xC3",
                                          "\xC3z",
                                          "\xC0\x80",
                                          "\xE0\x9F\xBF",
                                          "\xED\xA0\x80",
                                          "\xE2\x82",
                                          "\xF0\x8F\xBF\xBF",
                                          "\xF4\x90\x80\x80",
                                          "\xF5\x80\x80\x80",
                                          std::string(1, '\0')};
  for (std::string const& text : wrong) {
    EXPECT_EQ(read_bytes("sentence\tx\na\t\xFF\nab" + text + "\t\n"),
              (Rows{"a", "f:3: the text is not UTF-8, or has a NUL in it, at its byte 2"}));
  }
  EXPECT_EQ(read_bytes("sentence1\tsentence2\na\t\xFF\n").front().find("f:2: the text"), 0U);
  EXPECT_EQ(read_bytes(R"({"sentence": "a\u0000"})").front(),
            "f:1: the text is not UTF-8, or has a NUL in it, at its byte 1");
}

TEST(Dataset, ReadsJsonLines) {
  EXPECT_EQ(read_bytes("{\"ids\": [0, 5, 2147483647], \"label\": 3}\n{\"label\": null, \"ids\": [1]}\n"),
            (Rows{"0 5 2147483647=3", "1"}));
  EXPECT_EQ(
      read_bytes(" \n\t{\"sentence\": \"tab\\there\"}\n{\"sentence1\": \"a\", \"sentence2\": \"\", \"label\": 0}"),
      (Rows{"tab\there", "a|=0"}));
}

TEST(Dataset, ReadsOneRowPerAnswerOfMultiRc) {
  std::string const line =
      R"({"idx": 0, "version": 1.1, "passage": {"text": "P.", "questions": [)"
      R"({"question": "Why?", "answers": [{"text": "No", "idx": 0, "label": 0}, {"text": "Yes", "label": 1}], "idx": 0},)"
      R"({"question": "None?", "answers": []},)"
      R"({"question": "Who?", "answers": [{"text": "He"}]}]}})";
  EXPECT_EQ(read_bytes(line + "\n" + line),
            (Rows{"Why? No|P.=0", "Why? Yes|P.=1", "Who? He|P.", "Why? No|P.=0", "Why? Yes|P.=1", "Who? He|P."}));
}

TEST(Dataset, GivesTheTextOfTheCommandLineAsOneRow) {
  EXPECT_EQ(read_all(Dataset::from_text("{\"ids\": [1]}\nx")), (Rows{"{\"ids\": [1]}\nx"})) << "never parsed";
  EXPECT_EQ(read_all(Dataset::from_text("")), (Rows{""}));
}

TEST(Dataset, NumbersTheLines) {
  auto dataset = Dataset::from_bytes("\nsentence\na\nb\n", "f");
  ASSERT_TRUE(dataset) << dataset.message();
  EXPECT_EQ((**dataset->next()).line, 3);
  EXPECT_EQ((**dataset->next()).line, 4);
}

TEST(Dataset, ToleratesBlankLinesAtTheEndOnly) {
  EXPECT_EQ(read_bytes("sentence\na\n\n \n\r\n"), (Rows{"a"}));
  EXPECT_EQ(read_bytes("sentence\na\n\n\nb\n"), (Rows{"a", "f:3: blank line between rows"}));
  EXPECT_EQ(read_bytes("{\"ids\":[1]}\n\n{\"ids\":[1]}\n"), (Rows{"1", "f:2: blank line between rows"}));
}

TEST(Dataset, TakesALineOfTabsForARowOfEmptyFields) {
  EXPECT_EQ(read_bytes("sentence1\tsentence2\na\tb\n\t\n"), (Rows{"a|b", "|"}));
  EXPECT_EQ(read_bytes("sentence1\tsentence2\n\t\na\tb\n\n"), (Rows{"|", "a|b"}));
  EXPECT_EQ(read_bytes("sentence\tlabel\na\t1\n\t\n"),
            (Rows{"a=1", "f:3: label '' is not a whole number from 0 to 1023"}));
  EXPECT_EQ(read_bytes("sentence1\tsentence2\na\tb\n\t\t\n"), (Rows{"a|b", "f:3: 3 columns where the header names 2"}));
  EXPECT_EQ(read_bytes("sentence\na\n\t\n"), (Rows{"a"})) << "of one column, no tab splits anything";
}

TEST(Dataset, RejectsWhatIsMalformed) {
  struct Case {
    std::string bytes;
    std::string message;  // a part of it
  };
  std::string const header = "sentence\tlabel\n";
  std::vector<Case> const cases = {
      {"", "f: empty"},
      {"\n \n", "f: empty"},
      {header, "f: no rows"},
      {"{\"passage\": {\"text\": \"\", \"questions\": []}}", "f: no rows"},
      {"text\tlabel\na\t1\n", "f:1: the header must name"},
      {"label\n1\n", "f:1: the header must name"},
      {"sentence1\tlabel\na\t1\n", "f:1: the header must name"},
      {"sentence\tsentence1\tsentence2\na\tb\tc\n", "f:1: the header must name"},
      {"sentence\tsentence\na\tb\n", "f:1: the header names 'sentence' twice"},
      {"label\tQuality\tsentence\n1\t1\tb\n", "f:1: the header names 'Quality' twice"},
      {header + "a\n", "f:2: 1 columns where the header names 2"},
      {header + "a\t1\tb\n", "f:2: 3 columns"},
      {header + "a\t\n", "f:2: label '' is not a whole number"},
      {header + "a\t-1\n", "f:2: label '-1'"},
      {header + "a\t1.0\n", "f:2: label '1.0'"},
      {header + "a\t 1\n", "f:2: label ' 1'"},
      {header + "a\t1024\n", "f:2: label '1024'"},
      {header + "a\t99999999999999999999\n", "f:2: label '99999999999999999999'"},
      {header + "a\tpositive\n", "f:2: label 'positive'"},
      {"{\"ids\": []}", "f:1: 'ids' is empty"},
      {"{\"ids\": 3}", "f:1: 'ids' is not an array"},
      {"{\"ids\": [1, -2]}", "f:1: id is negative: -2"},
      {"{\"ids\": [1, 2.5]}", "f:1: id is not an integer: 2.5"},
      {"{\"ids\": [\"1\"]}", "f:1: id is not an integer"},
      {"{\"ids\": [null]}", "f:1: id is not an integer"},
      {"{\"ids\": [2147483648]}", "f:1: id 2147483648 is out of range"},
      {"{\"ids\": [1e300]}", "f:1: id is out of range"},
      {"{\"ids\": [1], \"label\": -1}", "f:1: label is negative"},
      {"{\"ids\": [1], \"label\": 1024}", "f:1: label 1024"},
      {"{\"ids\": [1], \"label\": \"1\"}", "f:1: label is not an integer"},
      {"{\"ids\": [1], \"ids\": [2]}", "f:1: JSON byte"},
      {"{\"ids\": [1]", "f:1: JSON byte"},
      {"{\"ids\": [1]} x", "f:1: JSON byte"},
      {"{\"ids\": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}", "f:1: JSON byte"},
      {"{\"ids\": [1]}\n[1]\n", "f:2: not a JSON object"},
      {"{\"ids\": [1]}\nsentence\n", "f:2: JSON byte"},
      {"{\"text\": \"a\"}", "f:1: none of the keys"},
      {"{\"sentence\": 3}", "f:1: key 'sentence'"},
      {"{\"sentence1\": \"a\"}", "f:1: no key 'sentence2'"},
      {"{\"passage\": {\"text\": \"\"}}", "f:1: no array 'questions'"},
      {"{\"passage\": {\"text\": \"\", \"questions\": [{}]}}", "f:1: no array 'answers'"},
      {"{\"passage\": {\"text\": \"\", \"questions\": [{\"question\": \"\", \"answers\": [3]}]}}", "f:1: "},
  };
  for (auto const& [bytes, message] : cases) {
    auto const rows = read_bytes(bytes);
    ASSERT_FALSE(rows.empty()) << bytes;
    EXPECT_EQ(rows.back().find(message), 0U) << bytes << "\ngave " << rows.back();
  }
}

TEST(Dataset, RejectsALineThatIsTooLong) {
  std::string bytes = "sentence\n" + std::string(kMaxLineBytes, 'x') + "\n";
  EXPECT_EQ(read_bytes(bytes).size(), 1U) << "as long as allowed";
  bytes.insert(9, 1, 'x');
  auto const rows = read_bytes(bytes);
  EXPECT_EQ(rows.back(), "f:2: line longer than " + std::to_string(kMaxLineBytes) + " bytes");
}

TEST(Dataset, ReadsFilesLongerThanABlock) {
  testing::TempDir const folder;
  std::string bytes = "sentence\tlabel\n";
  for (int i = 0; i < 20000; ++i) bytes += "row " + std::to_string(i) + "\t" + std::to_string(i % 2) + "\r\n";
  testing::write_file(folder / "d.tsv", bytes);
  auto const rows = read_all(Dataset::open(folder / "d.tsv"));
  ASSERT_EQ(rows.size(), 20000U);
  EXPECT_EQ(rows[0], "row 0=0");
  EXPECT_EQ(rows[19999], "row 19999=1");
}

TEST(Dataset, SaysWhenThereIsNoFile) {
  testing::TempDir const folder;
  auto const missing = Dataset::open(folder / "none.tsv");
  EXPECT_EQ(missing.code(), Errc::not_found);
  EXPECT_NE(missing.message().find("none.tsv"), std::string::npos);
  EXPECT_EQ(Dataset::open(folder.path()).code(), Errc::io) << "a folder";
}

TEST(Dataset, EndsWhenCancelled) {
  testing::TempDir const folder;
  testing::write_file(folder / "d.tsv", "sentence\na\n");
  auto const dataset = Dataset::open(folder / "d.tsv", {.cancelled = [] { return true; }});
  EXPECT_EQ(dataset.code(), Errc::cancelled);
}

TEST(Dataset, EndsWhenCancelledWhileItWaits) {
  testing::TempDir const folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  io_detail::FileDescriptor const writer(::open((folder / "pipe").c_str(), O_RDWR | O_CLOEXEC));
  int asked = 0;  // no signal ends the wait
  auto const dataset = Dataset::open(folder / "pipe", {.cancelled = [&] { return ++asked > 2; }});
  EXPECT_EQ(dataset.code(), Errc::cancelled);
}

TEST(Dataset, EndsWhenCancelledBeforeAnybodyWrites) {
  testing::TempDir const folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  int asked = 0;
  auto const dataset = Dataset::open(folder / "pipe", {.cancelled = [&] { return ++asked > 2; }});
  EXPECT_EQ(dataset.code(), Errc::cancelled);
}

TEST(Dataset, WaitsForAWriterThatComesLate) {
  testing::TempDir const folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  io_detail::FileDescriptor writer;
  int asked = 0;
  auto const give = [&] {
    if (++asked == 2) {
      writer = io_detail::FileDescriptor(::open((folder / "pipe").c_str(), O_WRONLY | O_CLOEXEC));
      EXPECT_EQ(::write(writer.get(), "sentence\na\n", 11), 11);
    }
    if (asked == 4) writer = io_detail::FileDescriptor();
    return false;
  };
  EXPECT_EQ(read_all(Dataset::open(folder / "pipe", {.cancelled = give})), Rows{"a"});
}

TEST(Dataset, WaitsForWhatComesLate) {
  testing::TempDir const folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  io_detail::FileDescriptor writer(::open((folder / "pipe").c_str(), O_RDWR | O_CLOEXEC));
  int asked = 0;
  auto const give = [&] {
    if (++asked == 2) {
      EXPECT_EQ(::write(writer.get(), "sentence\na\n", 11), 11);
    }
    if (asked == 4) writer = io_detail::FileDescriptor();
    return false;
  };
  EXPECT_EQ(read_all(Dataset::open(folder / "pipe", {.cancelled = give})), Rows{"a"});
}

}  // namespace
}  // namespace sida::cli
