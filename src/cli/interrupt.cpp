#include "cli/interrupt.hpp"

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

namespace sida::cli {
namespace {

constexpr char kStop = 's';
constexpr char kQuit = 'q';
constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};

constexpr std::size_t kMostFiles = 8;  // a run writes a handful

/// A name in memory that is never freed: the handler may read it at any time.
struct FileName {
  std::atomic<bool> is_taken{false};
  std::atomic<bool> is_set{false};
  char path[PATH_MAX] = {};
};

// All that a handler may touch: a descriptor, lock-free flags, and names behind such flags.
int pipe_ends[2] = {-1, -1};
std::atomic<bool> was_signalled{false};
std::array<FileName, kMostFiles> file_names;
static_assert(std::atomic<bool>::is_always_lock_free);

void on_signal(int signal) {
  int const saved = errno;
  if (was_signalled.exchange(true)) {
    for (FileName const& name : file_names) {
      if (name.is_set.load()) ::unlink(name.path);  // fails on a folder
    }
    for (FileName const& name : file_names) {
      if (name.is_set.load()) ::rmdir(name.path);  // fails on a file, and on a folder that isn't empty
    }
    std::signal(signal, SIG_DFL);
    std::raise(signal);  // comes when the handler returns
  }
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
  action.sa_flags = 0;  // no SA_RESTART: a blocked read of a terminal must end
  ::sigaction(signal, &action, nullptr);
}

bool is_ignored(int signal) {
  struct sigaction action {};
  return ::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

}  // namespace

RemovedWhenKilled::RemovedWhenKilled(std::string const& path) noexcept {
  if (path.size() >= sizeof(FileName::path)) return;
  for (std::size_t i = 0; i < file_names.size(); ++i) {
    FileName& name = file_names[i];
    if (name.is_taken.exchange(true)) continue;
    std::memcpy(name.path, path.c_str(), path.size() + 1);
    name.is_set.store(true);
    place_ = static_cast<int>(i);
    return;
  }
}

RemovedWhenKilled::~RemovedWhenKilled() {
  if (place_ < 0) return;
  FileName& name = file_names[static_cast<std::size_t>(place_)];
  name.is_set.store(false);
  name.is_taken.store(false);
}

std::atomic<bool> const& Interrupt::signalled() noexcept { return was_signalled; }

Interrupt::Interrupt() {
  if (::pipe2(pipe_ends, O_CLOEXEC) != 0) return;  // without a pipe, signals keep their default
  // The watcher must not be the thread whose system call a signal interrupts: the main thread's read should be.
  sigset_t blocked, previous;
  sigemptyset(&blocked);
  for (int const signal : kSignals) sigaddset(&blocked, signal);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &previous);
  watcher_ = std::thread(watch, source_);
  ::pthread_sigmask(SIG_SETMASK, &previous, nullptr);
  // Set even where a shell started us with SIGINT ignored (a background job): who sends it means it. SIGHUP comes
  // unasked, when a terminal closes.
  for (int const signal : kSignals) {
    if (signal != SIGHUP || !is_ignored(SIGHUP)) set_handler(signal, on_signal);
  }
}

Interrupt::~Interrupt() {
  if (!watcher_.joinable()) return;
  for (int const signal : kSignals) {
    if (!is_ignored(signal)) set_handler(signal, SIG_DFL);
  }
  [[maybe_unused]] auto const written = ::write(pipe_ends[1], &kQuit, 1);
  watcher_.join();
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
}

}  // namespace sida::cli
