// The threads of a block, as fibers on the thread that runs the block: a switch costs nanoseconds, and to
// ThreadSanitizer each fiber is a thread that nothing orders but __syncthreads and __syncwarp.

#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <sys/mman.h>
#include <thread>
#include <ucontext.h>
#include <vector>

#include "plumbing.hpp"

__thread uint3 threadIdx;
__thread uint3 blockIdx;
__thread uint3 blockDim;
__thread uint3 gridDim;

namespace cuda_on_host {
namespace {

constexpr std::size_t kStackBytes = 128 << 10, kGuardBytes = 64 << 10;  // whole pages on every machine
constexpr unsigned kWarp = 32;

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
  // What the lane brings to its warp.
  Together what;
  unsigned mask, source;
  std::uint64_t value, result;
  // For groups whose lowest lane is this one. Two, used in turn: the fastest lane may be at the next meeting while the
  // slowest has not left this one.
  Token meeting[2];
  unsigned turn = 0;
};

[[noreturn, gnu::noinline]] void jump(void** to) { __builtin_longjmp(to, 1); }

// Its frame is left and entered behind the compiler's back.
[[gnu::noinline, gnu::no_sanitize("address", "undefined")]] void switch_fiber(Fiber& from, Fiber& to,
                                                                              ucontext_t* entry) {
  if (has_asan()) __sanitizer_start_switch_fiber(&from.asan_stack, to.stack, to.stack_bytes);
  if (has_tsan()) __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);
  if (__builtin_setjmp(from.jump) == 0) {
    if (to.started) jump(to.jump);
    to.started = true;
    setcontext(entry);
  }
  if (has_asan()) __sanitizer_finish_switch_fiber(from.asan_stack, nullptr, nullptr);
}

struct Launch {
  dim3 grid, block;
  std::function<void()> const* body;
  Token begun;
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
    lanes_in_block_ = launch.block.x * launch.block.y * launch.block.z;
    while (lanes_.size() < lanes_in_block_) add_lane();
    if (has_tsan()) home_.tsan = __tsan_get_current_fiber();
    blockDim = launch.block;
    gridDim = launch.grid;
    std::size_t const blocks = std::size_t{launch.grid.x} * launch.grid.y * launch.grid.z;
    for (std::size_t block = first; block < blocks && why_ == nullptr; block += step) run_block(block);
    // After a failure some are amid a kernel; and ThreadSanitizer has some 8000 threads for all streams together.
    if (why_ != nullptr || (has_tsan() && lanes_.size() > 256)) drop_lanes();
  }
  /// How the last run failed, or empty.
  std::string failure() const {
    if (why_ == nullptr) return {};
    auto const text = [](uint3 const& v) {
      return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
    };
    return "block " + text(block_) + " of " + text(launch_->grid) + ": " + why_ + "; of " +
           std::to_string(lanes_in_block_) + " threads, " + std::to_string(done_) + " exited, " +
           std::to_string(at_barrier_) + " wait in __syncthreads";
  }
  void acquire_end() {
    ended_[0].acquire();
    ended_[1].acquire();
  }

  void barrier() {
    Token& meeting = barrier_[barrier_turn_];
    meeting.release();
    lane_->state = State::at_barrier;
    ++at_barrier_;
    next();
    meeting.acquire();
  }

  std::uint64_t together(Together what, unsigned mask, std::uint64_t value, unsigned source) {
    unsigned const self = lane_id();
    if ((mask >> self & 1) == 0) fail("a lane calls a function of its warp with a mask that it isn't in");
    Lane& lane = *lane_;
    Lane& lowest = *lanes_[index_ - self + static_cast<unsigned>(__builtin_ctz(mask))];
    Token& meeting = lowest.meeting[lowest.turn];
    if (what == Together::sync) meeting.release();  // the others order no memory
    lane.what = what;
    lane.mask = mask;
    lane.source = source;
    lane.value = value;
    lane.state = State::in_warp;
    next();
    if (what == Together::sync) meeting.acquire();
    return lane.result;
  }

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
      lanes_[i]->turn = 0;
    }
    at_barrier_ = 0;
    done_ = 0;
    block_turn_ ^= 1;
    enter(0, home_);
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
    for (unsigned i = 0; i < lanes_in_block_; ++i) {
      if (lanes_[i]->state == State::in_warp && meet(*lanes_[i], i / kWarp * kWarp)) any = true;
    }
    return any;
  }

  /// If all lanes of `lane`'s mask wait for each other, or have exited, gives each what it came for.
  bool meet(Lane const& lane, unsigned first) {
    auto const [what, mask] = std::pair(lane.what, lane.mask);
    unsigned here = 0, votes = 0;
    for (unsigned i = 0; i < kWarp && first + i < lanes_in_block_; ++i) {
      Lane const& other = *lanes_[first + i];
      if ((mask >> i & 1) == 0 || other.state == State::done) continue;
      if (other.state != State::in_warp || other.mask != mask || other.what != what) return false;
      here |= 1U << i;
      if (other.value != 0) votes |= 1U << i;
    }
    for (unsigned i = 0; i < kWarp; ++i) {
      if ((here >> i & 1) == 0) continue;
      Lane& other = *lanes_[first + i];
      bool const source_here = other.source < kWarp && (here >> other.source & 1) != 0;
      other.result = what == Together::ballot ? votes
                     : source_here            ? lanes_[first + other.source]->value
                                              : ~std::uint64_t{0};
      other.state = State::ready;
    }
    lanes_[first + static_cast<unsigned>(__builtin_ctz(mask))]->turn ^= 1;
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
    for (;;) current_runner->run_lane();
  }
  void run_lane() {
    // Blocks of one runner use the same shared memory, so they are in order; the token has two places, lest a lane
    // that begins late be ordered after one of its own block that ended early.
    launch_->begun.acquire();
    ended_[block_turn_ ^ 1].acquire();
    (*launch_->body)();
    ended_[block_turn_].release();
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
  void drop_lanes() {
    for (auto const& lane : lanes_) {
      if (has_asan()) __asan_unpoison_memory_region(lane->fiber.stack, kStackBytes);
      if (has_tsan()) __tsan_destroy_fiber(lane->fiber.tsan);
      munmap(lane->memory, kStackBytes + kGuardBytes);
    }
    lanes_.clear();
  }

  std::vector<std::unique_ptr<Lane>> lanes_;
  Fiber home_;
  Launch* launch_ = nullptr;
  char const* why_ = nullptr;
  uint3 block_{};
  unsigned lanes_in_block_ = 0, at_barrier_ = 0, done_ = 0;
  unsigned index_ = 0;    // of the lane that runs
  Lane* lane_ = nullptr;  // the lane that runs
  Token barrier_[2], ended_[2];
  unsigned barrier_turn_ = 0, block_turn_ = 0;
};

thread_local Runner* Runner::current_runner = nullptr;

/// A thread that runs every other block. Blocks on two threads have no order, and each its own shared memory.
class Helper {
 public:
  Helper() : thread_([this] { loop(); }) {}
  ~Helper() {
    {
      std::lock_guard const lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void begin(Launch& launch) {
    {
      std::lock_guard const lock(mutex_);
      launch_ = &launch;
    }
    changed_.notify_all();
  }
  std::string end() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return launch_ == nullptr; });
    return runner_.failure();
  }
  void acquire_end() { runner_.acquire_end(); }

 private:
  void loop() {
    Unseen const unseen;
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stop_ || launch_ != nullptr; });
      if (stop_) return;
      {
        Seen const seen;
        runner_.run(*launch_, 1, 2);
      }
      launch_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Launch* launch_ = nullptr;
  bool stop_ = false;
  Runner runner_;
  std::thread thread_;
};

}  // namespace

std::string run_blocks(dim3 grid, dim3 block, std::function<void()> const& body) {
  thread_local Runner runner;
  thread_local std::unique_ptr<Helper> helper;
  Launch launch{grid, block, &body, {}};
  launch.begun.release();
  bool const two = has_tsan() && std::size_t{grid.x} * grid.y * grid.z > 1;
  if (two) {
    Unseen const unseen;
    if (!helper) helper = std::make_unique<Helper>();
    helper->begin(launch);
  }
  runner.run(launch, 0, two ? 2 : 1);
  std::string failure;
  {
    Unseen const unseen;
    failure = runner.failure();
    if (two) {
      std::string const other = helper->end();
      if (failure.empty()) failure = other;
    }
  }
  runner.acquire_end();
  if (two) helper->acquire_end();
  return failure;
}

unsigned lane_id() { return Runner::current_runner->lane_id(); }
std::uint64_t together(Together what, unsigned mask, std::uint64_t value, unsigned source) {
  return Runner::current_runner->together(what, mask, value, source);
}
void trap() { Runner::current_runner->fail("__trap"); }

}  // namespace cuda_on_host

void __syncthreads() { cuda_on_host::Runner::current_runner->barrier(); }
