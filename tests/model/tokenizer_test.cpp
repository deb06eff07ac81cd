#include "sida/model/tokenizer.hpp"

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/io/temp_dir.hpp"

namespace sida {
namespace {

using ::sida::testing::read_file;

std::string const kFolder = std::string(SIDA_TEST_DATA) + "/goldens/tokenizer";

Tokenizer tiny() {
  auto tokenizer = Tokenizer::from_bytes(read_file(kFolder + "/tiny.model"));
  if (!tokenizer) throw std::runtime_error(tokenizer.message());
  return *std::move(tokenizer);
}

struct Case {
  std::string text;
  std::vector<std::int32_t> ids;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  std::ifstream file(kFolder + "/cases.jsonl");
  for (std::string line; std::getline(file, line);) {
    auto const json = nlohmann::json::parse(line);
    all.push_back({json.at("text"), json.at("ids").get<std::vector<std::int32_t>>()});
  }
  return all;
}

TEST(Tokenizer, EncodesAsSentencePieceDoes) {
  Tokenizer const tokenizer = tiny();
  ASSERT_GT(cases().size(), 30U);
  for (auto const& [text, ids] : cases()) {
    auto const encoded = tokenizer.encode(text);
    ASSERT_TRUE(encoded) << encoded.message();
    EXPECT_EQ(*encoded, ids) << text;
  }
}

TEST(Tokenizer, EndsBothTextsOfAPair) {
  Tokenizer const tokenizer = tiny();
  auto const first = tokenizer.encode("the cache");
  auto const second = tokenizer.encode("two spaces");
  auto const pair = tokenizer.encode_pair("the cache", "two spaces");
  ASSERT_TRUE(first && second && pair);
  std::vector<std::int32_t> both = *first;
  both.insert(both.end(), second->begin(), second->end());
  EXPECT_EQ(*pair, both);
  EXPECT_EQ((*first).back(), 1);
}

TEST(Tokenizer, AppendsTheIdThatItIsTold) {
  auto const tokenizer = Tokenizer::from_bytes(read_file(kFolder + "/tiny.model"), 7);
  ASSERT_TRUE(tokenizer);
  auto const ids = tokenizer->encode("");
  ASSERT_TRUE(ids);
  EXPECT_EQ(*ids, std::vector<std::int32_t>{7});
  EXPECT_EQ(Tokenizer::from_bytes(read_file(kFolder + "/tiny.model"), -1).code(), Errc::invalid_argument);
}

TEST(Tokenizer, DecodesItsOwnIds) {
  Tokenizer const tokenizer = tiny();
  auto const ids = tokenizer.encode("the cache");
  ASSERT_TRUE(ids);
  auto const text = tokenizer.decode(*ids);
  ASSERT_TRUE(text) << text.message();
  EXPECT_EQ(*text, "the cache");
  EXPECT_EQ(tokenizer.vocab_size(), 200);
}

TEST(Tokenizer, RejectsIdsBeyondItsPieces) {
  Tokenizer const tokenizer = tiny();
  std::vector<std::int32_t> const beyond = {3, 200};
  std::vector<std::int32_t> const negative = {-1};
  EXPECT_EQ(tokenizer.decode(beyond).code(), Errc::invalid_argument);
  EXPECT_EQ(tokenizer.decode(negative).code(), Errc::invalid_argument);
}

TEST(Tokenizer, RejectsWhatIsNoModelAndPrintsNothing) {
  std::string const model = read_file(kFolder + "/tiny.model");
  ::testing::internal::CaptureStderr();
  for (std::string const& bytes :
       {std::string(), std::string("hello"), std::string(1000, '\xFF'), model.substr(0, 900), std::string(64, '\0')}) {
    EXPECT_EQ(Tokenizer::from_bytes(bytes).code(), Errc::corrupt) << bytes.size();
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(Tokenizer, TakesBytesThatAreNotUtf8) {
  auto const ids = tiny().encode("the \xFF\xC3 cache");
  ASSERT_TRUE(ids) << ids.message();
  EXPECT_EQ(ids->back(), 1);
}

TEST(Tokenizer, EncodesOnSeveralThreads) {
  Tokenizer const tokenizer = tiny();
  auto const all = cases();
  std::vector<std::thread> threads;
  std::vector<int> wrong(3);
  for (std::size_t i = 0; i < wrong.size(); ++i) {
    threads.emplace_back([&, i] {
      for (auto const& [text, ids] : all) {
        auto const encoded = tokenizer.encode(text);
        wrong[i] += encoded && *encoded == ids ? 0 : 1;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(3));
}

}  // namespace
}  // namespace sida
