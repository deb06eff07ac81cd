#include "cli/interrupt.hpp"

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <unistd.h>

namespace sida::cli {
namespace {

constexpr char kStop = 's';
constexpr char kQuit = 'q';

// All that a handler may touch: a descriptor and a lock-free flag.
int pipe_ends[2] = {-1, -1};
std::atomic<bool> was_signalled{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_signal(int) {
  int const saved = errno;
  was_signalled.store(true);
  [[maybe_unused]] auto const written = ::write(pipe_ends[1], &kStop, 1);
  errno = saved;
}

void watch(std::stop_source const& source) {
  for (;;) {
    char word = 0;
    ssize_t const count = ::read(pipe_ends[0], &word, 1);
    if (count < 0 && errno == EINTR) continue;
    if (count != 1 || word == kQuit) return;
    source.request_stop();
  }
}

void set_handler(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  // The default comes back after the first signal. No SA_RESTART: a blocked read of a terminal must end.
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigaction(signal, &action, nullptr);
}

}  // namespace

std::atomic<bool> const& Interrupt::signalled() noexcept { return was_signalled; }

Interrupt::Interrupt() {
  if (::pipe2(pipe_ends, O_CLOEXEC) != 0) return;  // without a pipe, signals keep their default
  // The watcher must not be the thread whose system call a signal interrupts: the main thread's read should be.
  sigset_t blocked, previous;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGINT);
  sigaddset(&blocked, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &previous);
  watcher_ = std::thread(watch, source_);
  ::pthread_sigmask(SIG_SETMASK, &previous, nullptr);
  // Set even where a shell started us with SIGINT ignored (a background job): who sends it means it.
  set_handler(SIGINT, on_signal);
  set_handler(SIGTERM, on_signal);
}

Interrupt::~Interrupt() {
  if (!watcher_.joinable()) return;
  set_handler(SIGINT, SIG_DFL);
  set_handler(SIGTERM, SIG_DFL);
  [[maybe_unused]] auto const written = ::write(pipe_ends[1], &kQuit, 1);
  watcher_.join();
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
}

}  // namespace sida::cli
