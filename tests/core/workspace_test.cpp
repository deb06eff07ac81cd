#include "sida/core/workspace.hpp"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "sida/core/memory.hpp"

namespace {

using sida::Workspace;

struct Parts {
  float* floats;
  std::uint16_t* halves;
  std::byte* none;
  double* doubles;
};

/// The one function that both sizes and carves.
Parts carve(Workspace& workspace) {
  return {workspace.take<float>(3), workspace.take<std::uint16_t>(100), workspace.take<std::byte>(0),
          workspace.take<double>(8)};
}

TEST(Workspace, CarvesWhatItCounted) {
  Workspace counted;
  Parts const nothing = carve(counted);
  EXPECT_EQ(nothing.floats, nullptr);
  EXPECT_FALSE(counted.fits());
  EXPECT_EQ(counted.used_bytes(), 64U + 256U + 64U);

  sida::HostMemory memory;
  auto buffer = *sida::Buffer::allocate(memory, counted.used_bytes());
  Workspace carved(buffer.bytes());
  Parts const parts = carve(carved);
  EXPECT_TRUE(carved.fits());
  EXPECT_EQ(carved.used_bytes(), counted.used_bytes());
  auto const at = [&](void const* part) { return static_cast<std::byte const*>(part) - buffer.bytes().data(); };
  EXPECT_EQ(at(parts.floats), 0);
  EXPECT_EQ(at(parts.halves), 64);
  EXPECT_EQ(at(parts.doubles), 64 + 256);
}

TEST(Workspace, SaysWhenTheMemoryIsUsedUp) {
  sida::HostMemory memory;
  auto buffer = *sida::Buffer::allocate(memory, 128);
  Workspace workspace(buffer.bytes());
  EXPECT_NE(workspace.take<float>(16), nullptr);
  EXPECT_NE(workspace.take<float>(16), nullptr);
  EXPECT_TRUE(workspace.fits());
  EXPECT_EQ(workspace.take<float>(1), nullptr);
  EXPECT_FALSE(workspace.fits());
  EXPECT_EQ(workspace.take<float>(0), nullptr) << "once over, always over";
}

}  // namespace
