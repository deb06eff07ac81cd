#pragma once

#include <cstddef>
#include <memory>

#include "allocator.hpp"
#include "decoder.hpp"
#include "model_file.hpp"
#include "threads.hpp"

namespace engine {

/// What the engine has. All of it must outlive a MoE that is made from it.
struct Engine {
  Config const& config;
  ModelFile const& file;
  Allocator& allocator;
  Threads& threads;
};

/// All experts in memory. @throws std::runtime_error, std::bad_alloc.
std::unique_ptr<Moe> resident_moe(Engine const& engine);

/// As many experts in memory as `budget_bytes` holds; sida reads the others when they are needed.
/// @throws std::runtime_error.
std::unique_ptr<Moe> offloaded_moe(Engine const& engine, std::size_t budget_bytes);

}  // namespace engine
