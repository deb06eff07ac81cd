#include <algorithm>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "io/file_descriptor.hpp"
#include "tests/cli/golden.hpp"
#include "tests/cli/program.hpp"

namespace sida::cli::test {
namespace {

class ExitStatus : public ::testing::Test {
 protected:
  ExitStatus() { testing::write_file(data, golden.jsonl()); }

  std::vector<std::string> classify(std::vector<std::string> const& more = {}) const {
    std::vector<std::string> arguments = {"classify", "--model", golden.folder, "--data", data, "--quiet"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  std::vector<std::string> encode(std::vector<std::string> const& more = {}) const {
    std::vector<std::string> arguments = {"encode", "--model", golden.folder,   "--data",
                                          data,     "--out",   folder / "x.npy"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  Golden golden{"plain"};
  testing::TempDir folder;
  std::string data = folder / "data.jsonl";
};

constexpr char kTinyShape[] =
    R"({"model_type": "switch_transformers", "d_model": 8, "d_ff": 8, "d_kv": 4, "num_heads": 2,)"
    R"("num_layers": 2, "encoder_sparse_step": 2, "num_experts": 2, "vocab_size": 64})";

void expect_failure(Outcome const& outcome, int status, std::string const& about) {
  EXPECT_EQ(outcome.status, status) << about << ": " << outcome.err;
  EXPECT_EQ(outcome.out, "") << about;
  EXPECT_TRUE(outcome.err.starts_with("sida: error: ")) << about << ": " << outcome.err;
  EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << about << ": " << outcome.err;
  EXPECT_TRUE(outcome.err.ends_with("\n")) << about;
}

TEST_F(ExitStatus, IsZeroOnSuccess) {
  EXPECT_EQ(run(classify()).status, 0);
  EXPECT_EQ(run(encode()).status, 0);
}

TEST_F(ExitStatus, IsZeroForHelp) {
  for (std::vector<std::string> const& arguments :
       {std::vector<std::string>{"--help"}, {"classify", "--help"}, {"encode", "--help"}, {"--version"}}) {
    Outcome const outcome = run(arguments);
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.err, "");
    EXPECT_FALSE(outcome.out.empty());
  }
}

TEST_F(ExitStatus, IsToldByEveryHelpWhichFitsATerminal) {
  for (std::string const command : {"", "classify", "encode", "fidelity", "pack", "synth", "inspect"}) {
    Outcome const outcome =
        run(command.empty() ? std::vector<std::string>{"--help"} : std::vector<std::string>{command, "--help"});
    EXPECT_NE(outcome.out.find("\nExit status: 0"), std::string::npos) << command;
    EXPECT_EQ(outcome.out.find("wrong"), std::string::npos) << command;
    std::istringstream lines(outcome.out);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80U) << command << ": " << line;
  }
}

TEST_F(ExitStatus, IsTwoForMalformedAndNegativeValuesAndUnknownOptions) {
  std::vector<std::vector<std::string>> const misuses = {{"--budget", "-1"},
                                                         {"--budget", "-20%"},
                                                         {"--budget", "lots"},
                                                         {"--budget", "20%%"},
                                                         {"--budget", "1.5"},
                                                         {"--budget", "200%"},
                                                         {"--budget", ""},
                                                         {"--budget=-5MiB"},
                                                         {"--batch", "0"},
                                                         {"--batch", "-1"},
                                                         {"--batch", "1.5"},
                                                         {"--batch", "many"},
                                                         {"--threads", "0"},
                                                         {"--threads", "-2"},
                                                         {"--threads", "2x"},
                                                         {"--lookahead", "-1"},
                                                         {"--lookahead", "1e3"},
                                                         {"--prefetch-depth", "0"},
                                                         {"--policy", "best"},
                                                         {"--prefetch", "magic"},
                                                         {"--capacity", "hf-5"},
                                                         {"--read-path", "pipe"},
                                                         {"--isa", "neon"},
                                                         {"--unknown"},
                                                         {"--unknown", "1"},
                                                         {"--batch"},
                                                         {"stray"},
                                                         {"--text", "two inputs"},
                                                         {"-"},
                                                         {"--lookahead", "4"},
                                                         {"--likely", "30"},
                                                         {"--likely", "30", "--prefetch", "oracle"},
                                                         {"--likely", "30", "--mode", "predicted"},
                                                         {"--predictor", "file"},
                                                         {"--predictor", "file", "--prefetch", "oracle"},
                                                         {"--sparsemax", "exact"},
                                                         {"--sparsemax", "released", "--prefetch", "popularity"},
                                                         {"--device-budget", "20%"},
                                                         {"--device", "cpu", "--device-budget", "100%"},
                                                         {"--preload"},
                                                         {"--preload", "--device", "cpu"},
                                                         {"--threads", "18446744073709551617"}};
  for (auto const& misuse : misuses) expect_failure(run(classify(misuse)), 2, misuse.front() + " " + misuse.back());
  expect_failure(run({}), 2, "no command");
  expect_failure(run({"dance"}), 2, "an unknown command");
  expect_failure(run({"classify", "--data", data}), 2, "no model");
  expect_failure(run({"classify", "--model", golden.folder}), 2, "no input");
  expect_failure(run({"encode", "--model", golden.folder, "--data", data}), 2, "no output");
  expect_failure(run(encode({"--pool", "max"})), 2, "--pool max");
  expect_failure(run(encode({"--device", "cpu", "--preload"})), 2, "--preload");
  expect_failure(run({"fidelity", "--model", golden.folder, "--data", data, "--device", "cpu", "--preload"}), 2,
                 "--preload");
}

TEST_F(ExitStatus, IsOneForFilesThatAreNotThere) {
  expect_failure(run({"classify", "--model", folder / "none", "--data", data}), 1, "no checkpoint");
  Outcome const outcome = run({"classify", "--model", golden.folder, "--data", folder / "none.tsv"});
  expect_failure(outcome, 1, "no data");
  EXPECT_NE(outcome.err.find("none.tsv"), std::string::npos);
  expect_failure(run(classify({"--out", folder / "none/preds.tsv"})), 1, "no folder for the output");
  expect_failure(run(classify({"--json", folder.path()})), 1, "a folder as output");
}

TEST_F(ExitStatus, IsOneForABudgetBelowOneExpert) {
  for (auto const* const budget : {"0", "4095", "1KiB"}) {
    Outcome const outcome = run(classify({"--budget", budget}));
    expect_failure(outcome, 1, budget);
    EXPECT_NE(outcome.err.find("4096"), std::string::npos) << outcome.err;
  }
  EXPECT_NE(run(classify({"--budget", "4095"})).err.find("4095"), std::string::npos);
  EXPECT_EQ(run(classify({"--budget", "4096"})).status, 0);
}

TEST_F(ExitStatus, IsOneForBadDataAndLeavesNoOutput) {
  testing::write_file(data, golden.jsonl() + "{\"ids\": [3, 64]}\n");  // the vocabulary has 64
  Outcome const outcome =
      run(classify({"--out", folder / "preds.tsv", "--json", folder / "run.json", "--record", folder / "record"}));
  expect_failure(outcome, 1, "an id outside of the vocabulary");
  EXPECT_NE(outcome.err.find("data.jsonl:" + std::to_string(golden.lengths.size() + 1)), std::string::npos)
      << outcome.err;
  EXPECT_EQ(folder.names(), std::vector<std::string>{"data.jsonl"});
}

TEST_F(ExitStatus, IsOneForALabelThatTheModelDoesNotHave) {
  testing::write_file(data, golden.jsonl() + "{\"ids\": [3], \"label\": 9}\n");
  std::string const place = "data.jsonl:" + std::to_string(golden.lengths.size() + 1) + ": label 9, but the model has ";
  Outcome const outcome = run(classify({"--out", folder / "x"}));
  expect_failure(outcome, 1, "a label out of range");
  EXPECT_NE(outcome.err.find(place), std::string::npos) << outcome.err;
  EXPECT_EQ(run(encode()).status, 0) << "labels mean nothing there";
}

TEST_F(ExitStatus, IsOneForTextThatIsNotUtf8) {
  Outcome const outcome = run({"classify", "--model", SIDA_REFERENCE_MODEL, "--text", "good", "--text", "a\xFF"});
  expect_failure(outcome, 1, "not UTF-8");
  EXPECT_NE(outcome.err.find("--text:2: the text is not UTF-8"), std::string::npos) << outcome.err;
}

TEST_F(ExitStatus, IsOneForAFullDiskAndLeavesNoOutput) {
  Outcome const outcome =
      run(classify({"--out", "/dev/full", "--json", folder / "run.json", "--record", folder / "record"}));
  expect_failure(outcome, 1, "a full disk");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"data.jsonl"});
}

TEST_F(ExitStatus, IsOneForTextWithoutATokenizer) {
  Outcome const outcome = run({"classify", "--model", golden.folder, "--text", "good"});
  expect_failure(outcome, 1, "text");
  EXPECT_NE(outcome.err.find("tokenizer"), std::string::npos) << outcome.err;
}

TEST_F(ExitStatus, IsOneForAClassifierWithoutAHead) {
  write_bare_encoder(golden.folder, folder / "bare");
  Outcome const outcome = run({"classify", "--model", folder / "bare", "--data", data});
  expect_failure(outcome, 1, "no head");
  EXPECT_NE(outcome.err.find("classification_head.out_proj.weight"), std::string::npos) << outcome.err;
}

// More than are classified before the signal comes; a sanitizer makes reading and classifying them several times
// slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kManyInputs = 4000;
#else
constexpr int kManyInputs = 20000;
#endif

/// Waits until the run has begun, which it has when its outputs exist.
bool wait_for_entry(std::string const& folder, std::string const& prefix) {
  auto const deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (std::chrono::steady_clock::now() < deadline) {
    std::error_code none_yet;
    for (auto const& entry : std::filesystem::directory_iterator(folder, none_yet)) {
      if (entry.path().filename().string().starts_with(prefix)) return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

TEST_F(ExitStatus, Is130WhenInterruptedAndLeavesNoOutput) {
  testing::write_file(data, golden.jsonl(kManyInputs));
  for (auto const* const prefetch : {"none", "oracle", "wrong"}) {
    Program program(classify(
        {"--budget", "25%", "--prefetch", prefetch, "--out", folder / "preds.tsv", "--record", folder / "record"}));
    ASSERT_TRUE(wait_for_entry(folder.path(), ".sida-"));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    program.send(SIGINT);
    expect_failure(program.wait(), 130, prefetch);
    EXPECT_EQ(folder.names(), std::vector<std::string>{"data.jsonl"});
  }
}

TEST_F(ExitStatus, Is130WhenTheTerminalGoesAndLeavesNoOutput) {
  testing::write_file(data, golden.jsonl(kManyInputs));
  Program program(classify({"--budget", "25%", "--out", folder / "preds.tsv"}));
  ASSERT_TRUE(program.wait_for_handler(SIGHUP));
  ASSERT_TRUE(wait_for_entry(folder.path(), ".sida-"));
  program.send(SIGHUP);
  expect_failure(program.wait(), 130, "SIGHUP");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"data.jsonl"});
}

TEST_F(ExitStatus, Is2AndNamesAnOptionThatThereIsnt) {
  for (auto const& [option, value] : {std::pair("--buget", "20%"), {"--prefetch", "hash"}}) {
    bool const is_encode = std::string(option) == "--prefetch";
    Outcome const outcome = run(is_encode ? encode({option, value}) : classify({option, value}));
    expect_failure(outcome, 2, option);
    EXPECT_NE(outcome.err.find(option), std::string::npos) << outcome.err;
  }
  Outcome const outcome = run({"classify", "--model", golden.folder, "file.tsv"});
  expect_failure(outcome, 2, "file.tsv");
  EXPECT_NE(outcome.err.find("'file.tsv' is unexpected: files are given by --data"), std::string::npos) << outcome.err;
}

TEST_F(ExitStatus, Is1WhenAnOutputWouldReplaceAnInput) {
  std::filesystem::copy(golden.folder, folder / "model");
  std::string const model = folder / "model";
  std::string const data_file = folder / "in.jsonl";
  testing::write_file(data_file, golden.jsonl());
  std::filesystem::create_symlink(data_file, folder / "link");
  std::filesystem::create_symlink("x", folder / "link to x");
  for (std::string const name : {"experts.npy", "seqs.jsonl", "meta.json"}) {
    std::filesystem::create_directory(folder / name);
    std::filesystem::create_symlink("../in.jsonl", folder / (name + "/" + name));
  }
  std::string const record = folder / "record";
  std::filesystem::create_directory(record);
  std::string const weights = testing::read_file(model + "/model.safetensors");
  for (auto const& arguments : std::vector<std::vector<std::string>>{
           {"classify", "--model", model, "--data", data_file, "--out", data_file},
           {"classify", "--model", model, "--data", data_file, "--json", folder / "link"},
           {"classify", "--model", model, "--data", data_file, "--out", model + "/model.safetensors"},
           {"classify", "--model", model, "--data", data_file, "--out", folder / "x", "--json", folder / "x"},
           {"classify", "--model", model, "--data", data_file, "--out", folder / "x", "--json", folder / "./x"},
           {"classify", "--model", model, "--data", data_file, "--out", folder / "x", "--json", folder / "link to x"},
           {"classify", "--model", model, "--data", data_file, "--record", model},
           {"classify", "--model", model, "--data", data_file, "--record", folder / "new", "--out", folder / "new"},
           {"classify", "--model", model + "/", "--data", data_file, "--record", model + "/../model"},
           {"classify", "--model", model, "--data", data_file, "--record", folder.path()},
           {"classify", "--model", model, "--data", data_file, "--record", folder / "experts.npy"},
           {"classify", "--model", model, "--data", data_file, "--record", folder / "seqs.jsonl"},
           {"classify", "--model", model, "--data", data_file, "--record", folder / "meta.json"},
           {"classify", "--model", model, "--data", data_file, "--record", record, "--out", record + "/experts.npy"},
           {"classify", "--model", model, "--data", data_file, "--record", record, "--out", record + "/seqs.jsonl"},
           {"classify", "--model", model, "--data", data_file, "--record", record, "--json", record + "/meta.json"},
           {"encode", "--model", model, "--data", data_file, "--out", data_file},
           {"pack", model, "--out", model + "/model.safetensors"}}) {
    Outcome const outcome = run(arguments);
    expect_failure(outcome, 1, arguments.front() + " " + arguments.back());
    EXPECT_TRUE(outcome.err.find(": would replace what is read") != std::string::npos ||
                outcome.err.find(": is to be written twice") != std::string::npos ||
                outcome.err.find(": is where ") != std::string::npos)
        << outcome.err;
  }
  EXPECT_EQ(testing::read_file(data_file), golden.jsonl());
  EXPECT_EQ(testing::read_file(model + "/model.safetensors"), weights);
  EXPECT_TRUE(std::filesystem::is_empty(record));
}

TEST_F(ExitStatus, Is1WhenTheTokenizerIsNone) {
  std::filesystem::copy(golden.folder, folder / "model");
  testing::write_file(folder / "model/spiece.model", "hello");
  auto const packed = run({"pack", folder / "model", "--out", folder / "m.sida"});
  expect_failure(packed, 1, "pack");
  EXPECT_NE(packed.err.find("model/spiece.model: not a SentencePiece model (5 bytes)\n"), packed.err.npos)
      << packed.err;
  EXPECT_FALSE(std::filesystem::exists(folder / "m.sida"));
}

TEST_F(ExitStatus, Is1WhenAStandardStreamIsClosed) {
  // Its number must not go to a file that the program opens.
  expect_failure(Program({"classify", "--model", golden.folder, "-"}, "").wait(), 1, "no standard input");
}

TEST_F(ExitStatus, Is130SoonAfterAnInterruptWithinALongStep) {
  nlohmann::json const row = {{"ids", std::vector<int>(60000, 5)}};  // minutes of attention
  testing::write_file(data, row.dump() + "\n");
  for (auto const* const prefetch : {"none", "oracle"}) {
    Program program(classify({"--prefetch", prefetch, "--out", folder / "preds.tsv"}));
    ASSERT_TRUE(wait_for_entry(folder.path(), ".sida-"));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    auto const sent = std::chrono::steady_clock::now();
    program.send(SIGINT);
    expect_failure(program.wait(), 130, prefetch);
    EXPECT_LT(std::chrono::steady_clock::now() - sent, std::chrono::seconds(10)) << prefetch;
    EXPECT_EQ(folder.names(), std::vector<std::string>{"data.jsonl"});
  }
}

TEST_F(ExitStatus, Is1AndNothingAppearsWhenStandardOutputTakesNothing) {
  testing::write_file(folder / "shape.json", kTinyShape);
  auto const before = folder.names();
  std::vector<std::vector<std::string>> const commands = {
      {"classify", "--model", golden.folder, "--data", data, "--out", folder / "x", "--record", folder / "r"},
      {"encode", "--model", golden.folder, "--data", data, "--out", folder / "x"},
      {"pack", golden.folder, "--out", folder / "x"},
      {"synth", "--config", folder / "shape.json", "--out", folder / "m"},
      {"inspect", golden.folder},
      {"--help"},
      {"pack", "--help"},
      {"--version"}};
  for (auto const& command : commands) {
    for (std::string const out : {"/dev/full", ""}) {
      Outcome const outcome = Program(command, "/dev/null", out).wait();
      EXPECT_EQ(outcome.status, 1) << command.front() << " " << out;
      EXPECT_TRUE(outcome.err.starts_with("sida: error: standard output: cannot write: ")) << outcome.err;
      EXPECT_EQ(folder.names(), before) << command.front() << " " << out;
    }
  }
  EXPECT_EQ(Program(classify({"--out", folder / "x"}), "/dev/null", "").wait().status, 0) << "nothing to say";
}

TEST_F(ExitStatus, ComesWithAMessageThatSaysWhatWouldBeRight) {
  testing::write_file(folder / "array.jsonl", "[3, 1]\n");
  testing::write_file(folder / "text", "Neither weights nor a container.\n");
  std::filesystem::create_directory(folder / "empty");
  auto const with = [&](std::string const& option, std::string const& value) { return classify({option, value}); };
  struct Case {
    std::vector<std::string> arguments;
    int status;
    std::string part;
  };
  std::string const model = SIDA_REFERENCE_MODEL;
  std::vector<Case> const cases = {
      {{}, 2, "no command: give one of classify, encode"},
      {{"dance"}, 2, "'dance' is no command: give one of classify, encode"},
      {{"dance", "--help"}, 2, "'dance'"},
      {with("--budget", "5XB"), 2, "'5XB' is not a budget: a number is followed by nothing (bytes), %, B, KB"},
      {with("--budget", "99999999999999999999999"), 2, "is too large"},
      {with("--batch", "0"), 2, "--batch: '0' is not a whole number from 1 to"},
      {with("--out", ""), 2, "--out: an empty path"},
      {{"classify", "--model", "", "--data", data}, 2, "--model: an empty path"},
      {{"classify", "--model", golden.folder, "--data", ""}, 2, "--data: an empty path"},
      {{"inspect", ""}, 2, "an empty path"},
      {with("--out", "/nodir/x"), 1, "error: /nodir/x: create a temporary file beside it: No such"},
      {{"classify", "--model", golden.folder, "--data", folder / "array.jsonl"},
       1,
       "array.jsonl:1: a JSON array; each"},
      {{"classify", "--model", folder / "text", "--data", data}, 1, "text: header byte 0: not a packed container"},
      {{"classify", "--model", folder / "empty", "--data", data}, 1, "empty: no config.json in this folder"},
      {{"classify", "--model", model, "--text", "x", "--prefetch", "hash", "--predictor", folder / "empty"},
       1,
       "empty: a folder, where a hash function's"},
      {{"classify", "--model", model, "--text", "x", "--prefetch", "hash", "--predictor", folder / "text"},
       1,
       "is this a safetensors file?"}};
  for (auto const& [arguments, status, part] : cases) {
    Outcome const outcome = run(arguments);
    expect_failure(outcome, status, part);
    EXPECT_NE(outcome.err.find(part), std::string::npos) << part << "\n" << outcome.err;
  }
}

/// A pipe that takes nothing more: who writes to it waits.
class FullPipe {
 public:
  explicit FullPipe(std::string path) : path_(std::move(path)) {
    EXPECT_EQ(::mkfifo(path_.c_str(), 0600), 0);
    holder_ = io_detail::FileDescriptor(::open(path_.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    for (char const byte = 0; ::write(holder_.get(), &byte, 1) == 1;) continue;
  }
  std::string const& path() const noexcept { return path_; }

 private:
  std::string path_;
  io_detail::FileDescriptor holder_;
};

TEST_F(ExitStatus, IsASignalsAfterTwoAndNothingStays) {
  testing::TempDir const elsewhere;
  FullPipe const pipe(elsewhere / "pipe");  // every command prints before its outputs get their names
  std::string const shape = elsewhere / "shape.json";
  testing::write_file(shape, kTinyShape);
  auto const before = folder.names();
  struct Case {
    std::vector<std::string> arguments;
    std::string place;
  };
  for (auto const& [arguments, place] :
       {Case{{"pack", golden.folder, "--out", folder / "x"}, "."},
        Case{{"synth", "--config", shape, "--out", folder / "m"}, "m"},
        Case{{"classify", "--model", golden.folder, "--data", data, "--json", folder / "x", "--record", folder / "r"},
             "r"}}) {
    Program program(arguments, "/dev/null", pipe.path());
    ASSERT_TRUE(wait_for_entry(folder / place, ".sida-"));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    program.send_at_once({SIGINT, SIGTERM});
    EXPECT_GE(program.wait().status, 1000) << arguments.front();
    EXPECT_EQ(folder.names(), before) << arguments.front();
  }
}

TEST_F(ExitStatus, Is130WhenInterruptedWhileReadingStandardInput) {
  std::string const pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  int const holder = ::open(pipe.c_str(), O_RDWR | O_CLOEXEC);  // so that no end of file comes
  ASSERT_GE(holder, 0);
  Program program({"classify", "--model", golden.folder, "-"}, pipe);
  ASSERT_TRUE(program.wait_for_handler(SIGINT));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  program.send(SIGINT);
  expect_failure(program.wait(), 130, "reading");
  ::close(holder);
}

}  // namespace
}  // namespace sida::cli::test
