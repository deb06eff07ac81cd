#pragma once

#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include "tests/io/temp_dir.hpp"

namespace sida::cli::test {

/// How a program ended. `status` is the exit status, or 1000 + signal where a signal ended it.
struct Outcome {
  int status = 0;
  std::string out;
  std::string err;
};

/// The program `sida` (SIDA_PROGRAM) under the given arguments, in a process of its own.
class Program {
 public:
  /// `input` is a file for standard input, `output` one for standard output instead of `Outcome::out`; "" for none: it
  /// is closed.
  explicit Program(std::vector<std::string> arguments, std::string const& input = "/dev/null",
                   std::optional<std::string> const& output = {}) {
    arguments.insert(arguments.begin(), SIDA_PROGRAM);
    std::vector<char*> pointers;
    for (auto& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    std::string const out = output.value_or(folder_ / "out");
    std::string const err = folder_ / "err";
    pid_ = ::fork();
    if (pid_ < 0) throw std::runtime_error("fork");
    if (pid_ == 0) {
      if (!input.empty()) redirect(input, O_RDONLY, 0);
      if (!out.empty()) redirect(out, O_WRONLY | O_CREAT, 1);
      redirect(err, O_WRONLY | O_CREAT, 2);
      if (input.empty()) ::close(0);
      if (out.empty()) ::close(1);
      ::execv(pointers[0], pointers.data());
      ::_exit(127);
    }
  }
  Program(Program const&) = delete;
  Program& operator=(Program const&) = delete;
  ~Program() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }

  void send(int signal) const { ::kill(pid_, signal); }

  /// Sends all of them while the program stands still, so that it gets them before it does anything else.
  void send_at_once(std::initializer_list<int> signals) const {
    send(SIGSTOP);
    ::waitpid(pid_, nullptr, WUNTRACED);
    for (int const signal : signals) send(signal);
    send(SIGCONT);
  }

  /// Waits until the program has a handler for `signal`: start-up is slow under a sanitizer.
  bool wait_for_handler(int signal) const {
    auto const deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < deadline) {
      std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
      for (std::string line; std::getline(status, line);) {
        if (line.starts_with("SigCgt:") && (std::stoull(line.substr(7), nullptr, 16) >> (signal - 1) & 1) != 0)
          return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  }

  Outcome wait() {
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    bool const has_out = std::filesystem::exists(folder_ / "out");
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status),
            has_out ? testing::read_file(folder_ / "out") : "", testing::read_file(folder_ / "err")};
  }

 private:
  static void redirect(std::string const& path, int flags, int descriptor) {
    int const fd = ::open(path.c_str(), flags, 0600);
    if (fd < 0 || ::dup2(fd, descriptor) < 0) ::_exit(126);
  }

  testing::TempDir folder_;
  pid_t pid_ = -1;
};

inline Outcome run(std::vector<std::string> arguments, std::string const& input = "/dev/null") {
  return Program(std::move(arguments), input).wait();
}

}  // namespace sida::cli::test
