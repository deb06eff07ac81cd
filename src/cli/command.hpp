#pragma once

#include <atomic>
#include <memory>
#include <stop_token>
#include <string>

#include "sida/core/result.hpp"

namespace CLI {
class App;
}

namespace sida::cli {

/// What the process says when it ends.
enum class ExitStatus : int {
  success = 0,
  failure = 1,        ///< data, I/O, a budget too small for one expert
  usage = 2,          ///< malformed or negative values, unknown options
  interrupted = 130,  ///< SIGINT
};

/// What the process lends a command while it runs.
class Session {
 public:
  /// `signalled` is set by the signal handler itself.
  Session(std::stop_token stop, std::atomic<bool> const& signalled, bool has_terminal)
      : stop_(std::move(stop)), signalled_(&signalled), has_terminal_(has_terminal) {}

  /// Requested on SIGINT or SIGTERM, from a thread of its own, so that stop callbacks may lock and notify. A command
  /// that sees it returns `interrupted()`; its `OutputFile`s then leave nothing behind.
  std::stop_token stop() const noexcept { return stop_; }
  /// True from the moment of the signal, so that who was woken by it sees why.
  bool stopped() const noexcept { return signalled_->load(); }
  /// Whether stderr is a terminal, so that a progress bar makes sense.
  bool has_terminal() const noexcept { return has_terminal_; }

  static Status interrupted() { return {Errc::cancelled, "interrupted"}; }

 private:
  std::stop_token stop_;
  std::atomic<bool> const* signalled_;
  bool has_terminal_;
};

/// One subcommand. Options bind to its members, so it lives as long as its `CLI::App`.
///
/// A malformed value is found while the command line is parsed: option callbacks and `check` throw
/// CLI::ValidationError, which ends the program with status 2. All that `run` returns ends it with status 1, with
/// "sida: error: <message>" as one line on stderr, or with 130 where the session was stopped.
class Command {
 public:
  virtual ~Command() = default;
  virtual std::string name() const = 0;
  /// One line, shown by `sida --help`.
  virtual std::string summary() const = 0;
  /// Paragraphs for the end of the command's own --help: what it reads, writes and promises.
  virtual std::string manual() const { return {}; }
  virtual void add_options(CLI::App& app) = 0;
  /// Checks that concern several options at once. Throws CLI::ValidationError.
  virtual void check() const {}
  /// Prints its result to stdout. @return a failure whose message names the file and the place.
  virtual Status run(Session& session) = 0;
};

std::unique_ptr<Command> make_classify_command();
std::unique_ptr<Command> make_encode_command();
std::unique_ptr<Command> make_fidelity_command();
std::unique_ptr<Command> make_pack_command();
std::unique_ptr<Command> make_synth_command();
std::unique_ptr<Command> make_inspect_command();

}  // namespace sida::cli
