#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/model/encoder_fixture.hpp"
#include "tests/model/random_checkpoint.hpp"

namespace sida::testing {

/// A small checkpoint with random weights, and batches for it.
class SwitchEncoderTest : public ::testing::Test {
 protected:
  void SetUp() override { write_checkpoint(folder_, config_, random_tensors(config_, Dtype::bf16, Dtype::bf16)); }

  TokenBatch batch(std::uint32_t seed, std::vector<std::size_t> const& lengths = {7, 1, 66, 20}) const {
    return random_batch(lengths, config_.vocab_size, seed);
  }
  std::string outputs(SwitchEncoder& encoder, TokenBatch const& batch, ThreadPool& pool) {
    SwitchEncoder::State state;
    run_batch(encoder, batch, state, pool);
    return output_bytes(state);
  }

  SwitchConfig config_ = small_config();
  TempDir folder_;
  InlinePool pool_;
};

}  // namespace sida::testing
