// The threads of a block, as fibers on the thread that runs the block: a switch costs nanoseconds, and to
// ThreadSanitizer each fiber is a thread that nothing orders but __syncthreads, __syncwarp and, between the kernels of
// a stream, what the launch says.

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <sys/mman.h>
#include <thread>
#include <ucontext.h>
#include <utility>
#include <vector>

#include "plumbing.hpp"

__thread uint3 threadIdx;
__thread uint3 blockIdx;
__thread uint3 blockDim;
__thread uint3 gridDim;

namespace cuda_on_host {
namespace {

constexpr std::size_t kStackBytes = 128 << 10, kGuardBytes = 64 << 10;  // whole pages on every machine
constexpr unsigned kWarp = 32, kWholeWarp = 0xffffffffU;

struct Fiber {
  void* jump[5];
  bool started = false;
  void* tsan = nullptr;
  void* asan_stack = nullptr;
  void const* stack = nullptr;
  std::size_t stack_bytes = 0;
};

enum class State : unsigned char { ready, at_barrier, in_warp, done };

struct Lane {
  Fiber fiber;
  ucontext_t entry;
  void* memory = nullptr;  // of the stack, with its guard
  uint3 index;
  State state = State::done;
  Meeting what;  // where it waits, in its warp
};

/// Two of each, used in turn: the fastest lane may be at the next meeting while the slowest has not left this one.
struct Warp {
  Bits brought[2][kWarp];
  Token meeting[2];
  unsigned turn = 0;
};

[[noreturn, gnu::noinline]] void jump(void** to) { __builtin_longjmp(to, 1); }

// Its frame is left and entered behind the compiler's back. `is_last`: `from` is never entered again.
[[gnu::noinline, gnu::no_sanitize("address", "undefined")]] void switch_fiber(Fiber& from, Fiber& to, ucontext_t* entry,
                                                                              bool is_last = false) {
  if (has_asan()) __sanitizer_start_switch_fiber(is_last ? nullptr : &from.asan_stack, to.stack, to.stack_bytes);
  if (has_tsan()) __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);
  if (__builtin_setjmp(from.jump) == 0) {
    if (to.started) jump(to.jump);
    to.started = true;
    setcontext(entry);
  }
  if (has_asan()) __sanitizer_finish_switch_fiber(from.asan_stack, nullptr, nullptr);
}

using TokenRef = std::shared_ptr<Token>;

struct Launch {
  LaunchShape shape;
  std::function<void()> const* body;
  TokenRef previous;  // the end of the kernel that this one may overlap, if it may
  Token begun;
  TokenRef ended = std::make_shared<Token>();
};

/// Runs blocks, one after another, on the thread that calls it, always the same.
class Runner {
 public:
  Runner() { home_.started = true; }
  ~Runner() { drop_lanes(); }

  /// Blocks `first`, `first + step` and so on, until one fails.
  void run(Launch& launch, unsigned first, unsigned step) {
    launch_ = &launch;
    why_ = nullptr;
    current_runner = this;
    LaunchShape const& shape = launch.shape;
    lanes_in_block_ = shape.block.x * shape.block.y * shape.block.z;
    while (lanes_.size() < lanes_in_block_) add_lane();
    if (has_tsan()) home_.tsan = __tsan_get_current_fiber();
    blockDim = shape.block;
    gridDim = shape.grid;
    prepare_memory(shape.shared_bytes);
    launch.begun.acquire();
    std::size_t const blocks = std::size_t{shape.grid.x} * shape.grid.y * shape.grid.z;
    for (std::size_t block = first; block < blocks && why_ == nullptr; block += step) run_block(block);
    launch.ended->release();
    prepare_memory(0);
    // After a failure some are amid a kernel; and ThreadSanitizer has some 8000 threads for all streams together.
    if (why_ != nullptr || (has_tsan() && lanes_.size() > 256)) drop_lanes();
  }
  /// How the last run failed, or empty.
  std::string failure() const {
    if (why_ == nullptr) return {};
    return why_ + ("; of " + std::to_string(lanes_in_block_)) + " threads, " + std::to_string(done_) + " exited, " +
           std::to_string(at_barrier_) + " wait in __syncthreads";
  }

  void barrier() {
    Token& meeting = barrier_[barrier_turn_];
    meeting.release();
    lane_->state = State::at_barrier;
    ++at_barrier_;
    next();
    meeting.acquire();
  }

  Bits const* meet(Meeting what, unsigned mask, Bits const& mine) {
    if (mask != kWholeWarp) fail("a mask that isn't the whole warp's");
    Warp& warp = *warps_[index_ / kWarp];
    Token& meeting = warp.meeting[warp.turn];
    Bits* const brought = warp.brought[warp.turn];
    if (what == Meeting::sync) meeting.release();  // the others order no memory
    brought[lane_id()] = mine;
    lane_->what = what;
    lane_->state = State::in_warp;
    next();
    if (what == Meeting::sync) meeting.acquire();
    return brought;
  }

  void wait_for_previous() const {
    if (launch_->previous) launch_->previous->acquire();
  }
  void* shared_memory() const { return shared_; }
  unsigned lane_id() const { return index_ % kWarp; }

  [[noreturn]] void fail(char const* why) {
    why_ = why;
    switch_fiber(lane_->fiber, home_, nullptr);
    std::abort();  // nobody comes back
  }

  static thread_local Runner* current_runner;

 private:
  void run_block(std::size_t block) {
    // The stand-in for "one block has an SM's shared memory": see __shared__.
    static std::mutex one_block;
    std::unique_lock lock(one_block, std::defer_lock);
    if (has_asan()) lock.lock();
    block_ = {static_cast<unsigned>(block % gridDim.x), static_cast<unsigned>(block / gridDim.x % gridDim.y),
              static_cast<unsigned>(block / gridDim.x / gridDim.y)};
    blockIdx = block_;
    for (unsigned i = 0; i < lanes_in_block_; ++i) {
      lanes_[i]->index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
      lanes_[i]->state = State::ready;
    }
    if (shared_ != nullptr) {
      Unseen const unseen;
      std::memset(shared_, 0xff, launch_->shape.shared_bytes);
    }
    at_barrier_ = 0;
    done_ = 0;
    // Blocks of one runner use the same shared memory, so they are in order.
    begun_.release();
    enter(0, home_);
    ended_.acquire();
  }

  void enter(unsigned index, Fiber& from) {
    index_ = index;
    lane_ = lanes_[index].get();
    threadIdx = lane_->index;
    switch_fiber(from, lane_->fiber, &lane_->entry);
  }

  /// Leaves the lane until it is ready, for the next one that is. If none is, those go on that have met; if none has,
  /// this block has failed.
  void next() {
    Lane& self = *lane_;
    for (bool settled = false; !settled || settle(); settled = true) {
      for (unsigned i = index_ + 1, tried = 0; tried < lanes_in_block_; ++i, ++tried) {
        if (i == lanes_in_block_) i = 0;
        if (lanes_[i]->state != State::ready) continue;
        if (lanes_[i].get() != &self) enter(i, self.fiber);
        return;
      }
    }
    if (done_ != lanes_in_block_) fail("threads wait for ever");
    switch_fiber(self.fiber, home_, nullptr);
  }

  /// Makes ready the lanes that have met all those they wait for. Returns whether there are any.
  bool settle() {
    bool any = false;
    if (at_barrier_ == lanes_in_block_) {
      any = true;
      at_barrier_ = 0;
      barrier_turn_ ^= 1;
      for (unsigned i = 0; i < lanes_in_block_; ++i) lanes_[i]->state = State::ready;
    }
    for (unsigned first = 0; first < lanes_in_block_; first += kWarp) any = settle_warp(first) || any;
    return any;
  }
  /// The same for one warp, if all its lanes are at one meeting or have exited.
  bool settle_warp(unsigned first) {
    unsigned const end = std::min(first + kWarp, lanes_in_block_);
    Lane const* one = nullptr;
    for (unsigned i = first; i < end; ++i) {
      Lane const& lane = *lanes_[i];
      if (lane.state == State::done) continue;
      if (lane.state != State::in_warp || (one != nullptr && one->what != lane.what)) return false;
      one = &lane;
    }
    if (one == nullptr) return false;
    Warp& warp = *warps_[first / kWarp];
    for (unsigned i = first; i < first + kWarp; ++i) {
      if (i < end && lanes_[i]->state == State::in_warp) {
        lanes_[i]->state = State::ready;
      } else {
        for (std::uint64_t& word : warp.brought[warp.turn][i - first].words) word = ~std::uint64_t{0};
      }
    }
    warp.turn ^= 1;
    return true;
  }

  [[noreturn]] static void lane_main() {
    void const* stack = nullptr;
    std::size_t bytes = 0;
    if (has_asan()) __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
    if (Fiber& home = current_runner->home_; home.stack == nullptr) {  // the first lane comes from there
      home.stack = stack;
      home.stack_bytes = bytes;
    }
    while (!current_runner->is_over_) current_runner->run_lane();
    switch_fiber(current_runner->lane_->fiber, current_runner->home_, nullptr, true);
    std::abort();  // nobody comes back
  }
  void run_lane() {
    begun_.acquire();
    (*launch_->body)();
    ended_.release();
    lane_->state = State::done;
    ++done_;
    next();
  }

  void add_lane() {
    auto lane = std::make_unique<Lane>();
    Fiber& fiber = lane->fiber;
    void* const memory = mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, kGuardBytes, PROT_NONE);
    getcontext(&lane->entry);
    lane->entry.uc_stack.ss_sp = static_cast<char*>(memory) + kGuardBytes;
    lane->entry.uc_stack.ss_size = kStackBytes;
    lane->entry.uc_link = nullptr;
    lane->memory = memory;
    fiber.stack = lane->entry.uc_stack.ss_sp;
    fiber.stack_bytes = kStackBytes;
    makecontext(&lane->entry, lane_main, 0);
    if (has_tsan()) fiber.tsan = __tsan_create_fiber(0);
    lanes_.push_back(std::move(lane));
  }
  /// AddressSanitizer keeps a copy of a fiber's stack until the fiber itself leaves for good; one amid a kernel can't.
  void drop_lanes() {
    is_over_ = has_asan();
    for (unsigned i = 0; i < lanes_.size() && is_over_; ++i) {
      if (lanes_[i]->fiber.started && lanes_[i]->state == State::done) enter(i, home_);
    }
    is_over_ = false;
    for (auto const& lane : lanes_) {
      if (has_asan()) __asan_unpoison_memory_region(lane->fiber.stack, kStackBytes);
      if (has_tsan()) __tsan_destroy_fiber(lane->fiber.tsan);
      munmap(lane->memory, kStackBytes + kGuardBytes);
    }
    lanes_.clear();
  }

  /// The shared memory is just as long as the launch says, so that AddressSanitizer knows its end; and new, so that no
  /// earlier launch is seen to have used it.
  void prepare_memory(std::size_t bytes) {
    Unseen const unseen;
    while (warps_.size() * kWarp < lanes_in_block_) warps_.push_back(std::make_unique<Warp>());
    std::free(shared_);
    shared_ = nullptr;
    if (bytes > 0 && posix_memalign(&shared_, 16, bytes) != 0) throw std::bad_alloc();
  }

  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<std::unique_ptr<Warp>> warps_;
  void* shared_ = nullptr;
  Fiber home_;
  Launch* launch_ = nullptr;
  char const* why_ = nullptr;
  bool is_over_ = false;
  uint3 block_{};
  unsigned lanes_in_block_ = 0, at_barrier_ = 0, done_ = 0;
  unsigned index_ = 0;    // of the lane that runs
  Lane* lane_ = nullptr;  // the lane that runs
  Token barrier_[2], begun_, ended_;
  unsigned barrier_turn_ = 0;
};

thread_local Runner* Runner::current_runner = nullptr;

/// A thread that runs blocks, for ever. Blocks on two threads have no order, and each its own shared memory.
class Helper {
 public:
  Helper() { std::thread(&Helper::loop, this).detach(); }
  void begin(Launch& launch, unsigned first) {
    {
      std::lock_guard const lock(mutex_);
      launch_ = &launch;
      first_ = first;
    }
    changed_.notify_all();
  }
  std::string end() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return launch_ == nullptr; });
    return runner_.failure();
  }

 private:
  [[noreturn]] void loop() {
    Unseen const unseen;
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return launch_ != nullptr; });
      {
        Seen const seen;
        runner_.run(*launch_, first_, 2);
      }
      launch_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Launch* launch_ = nullptr;
  unsigned first_ = 0;
  Runner runner_;
};

/// Helpers that no stream has now. Their fibers are costly; what streams did that are gone is seen as ordered.
struct Idle {
  std::mutex mutex;
  std::vector<Helper*> helpers;
};
Idle& idle() {
  static Idle* const it = new Idle;  // threads of streams may outlive main
  return *it;
}

/// What a stream's thread runs blocks with.
struct Blocks {
  /// Under ThreadSanitizer. A kernel that may overlap the one before it runs on the next pair of helpers, so that even
  /// the one before that is not seen to be ordered: what a fiber did is ordered before all that it does later.
  static constexpr unsigned kPairs = 3;

  ~Blocks() {
    Unseen const unseen;
    std::lock_guard const lock(idle().mutex);
    for (Helper* const helper : helpers) {
      if (helper != nullptr) idle().helpers.push_back(helper);
    }
  }
  Helper& helper(unsigned i) {
    Helper*& helper = helpers[2 * pair + i];
    if (helper != nullptr) return *helper;
    std::lock_guard const lock(idle().mutex);
    if (idle().helpers.empty()) return *(helper = new Helper);
    helper = idle().helpers.back();
    idle().helpers.pop_back();
    return *helper;
  }
  std::string run_on_helpers(Launch& launch) {
    Unseen const unseen;
    for (unsigned i = 0; i < 2; ++i) helper(i).begin(launch, i);
    std::string const first = helper(0).end(), second = helper(1).end();
    return first.empty() ? second : first;
  }

  Runner runner;
  Helper* helpers[2 * kPairs] = {};
  unsigned pair = 0;
  std::vector<TokenRef> kernel_ends;  // that the thread has not come after yet
};
// No destructor of the thread's: LeakSanitizer takes what runs at the process's end for a leak.
thread_local Blocks* blocks = nullptr;

}  // namespace

std::string run_blocks(LaunchShape const& shape, std::function<void()> const& body) {
  if (blocks == nullptr) blocks = new Blocks;
  Launch launch{shape, &body, nullptr, {}};
  if (shape.is_early && !blocks->kernel_ends.empty()) {
    launch.previous = blocks->kernel_ends.back();
    blocks->pair = (blocks->pair + 1) % Blocks::kPairs;
  }
  blocks->kernel_ends.push_back(launch.ended);
  launch.begun.release();
  if (has_tsan()) return blocks->run_on_helpers(launch);
  blocks->runner.run(launch, 0, 1);
  return blocks->runner.failure();
}
void come_after_kernels() {
  if (blocks == nullptr) return;
  for (TokenRef const& ended : blocks->kernel_ends) ended->acquire();
  blocks->kernel_ends.clear();
}
void end_blocks() { delete std::exchange(blocks, nullptr); }

unsigned lane_id() { return Runner::current_runner->lane_id(); }
void* dynamic_shared() { return Runner::current_runner->shared_memory(); }
Bits const* meet(Meeting what, unsigned mask, Bits const& mine) {
  return Runner::current_runner->meet(what, mask, mine);
}

}  // namespace cuda_on_host

void __syncthreads() { cuda_on_host::Runner::current_runner->barrier(); }
void cudaGridDependencySynchronize() { cuda_on_host::Runner::current_runner->wait_for_previous(); }
