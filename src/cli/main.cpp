#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <fcntl.h>
#include <memory>
#include <sstream>
#include <string>
#include <unistd.h>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/command.hpp"
#include "cli/interrupt.hpp"
#include "cli/report.hpp"

namespace sida::cli {
namespace {

constexpr char kDescription[] =
    R"(sida serves Mixture-of-Experts models from a memory budget: the experts that the
input needs are loaded from disk as they are needed, and the answers are those
of the whole model.)";
constexpr char kManual[] =
    R"(Exit status: 0 on success; 1 for data, I/O, and a budget too small for one
expert; 2 for malformed or negative values and unknown options; 130 when
interrupted.)";

constexpr std::size_t kHelpColumns = 80;

/// Breaks descriptions between words, so that help fits a terminal.
class WrappedHelp final : public CLI::Formatter {
 public:
  std::string make_option_desc(CLI::Option const* option) const override {
    return wrap(CLI::Formatter::make_option_desc(option));
  }
  std::string make_subcommand(CLI::App const* command) const override {
    std::ostringstream text;
    CLI::detail::format_help(text, command->get_name(), wrap(command->get_description()), column_width_);
    return text.str();
  }

 private:
  std::string wrap(std::string const& text) const {
    std::istringstream words(text);
    std::string wrapped;
    std::size_t column = 0;
    for (std::string word; words >> word;) {
      bool const fits = column + 1 + word.size() <= kHelpColumns - column_width_;
      if (!wrapped.empty()) wrapped += fits ? ' ' : '\n';
      column = wrapped.empty() || !fits ? word.size() : column + 1 + word.size();
      wrapped += word;
    }
    return wrapped;
  }
};

std::vector<std::unique_ptr<Command>> make_commands() {
  std::vector<std::unique_ptr<Command>> commands;
  commands.push_back(make_classify_command());
  commands.push_back(make_encode_command());
  commands.push_back(make_fidelity_command());
  commands.push_back(make_pack_command());
  commands.push_back(make_synth_command());
  commands.push_back(make_inspect_command());
  return commands;
}

int report_failure(std::string message, ExitStatus status) {
  std::replace(message.begin(), message.end(), '\n', ' ');  // one line, whatever a path or a parser puts into it
  std::fprintf(stderr, "sida: error: %s\n", message.c_str());
  return static_cast<int>(status);
}

/// What is closed of 0, 1 and 2 would be given to the next file that is opened, and read or written in its place.
/// Opened the wrong way round, so that its use is an error as before.
void fill_standard_descriptors() {
  for (int const fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) < 0) ::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

int run_command(Command& command) {
  Interrupt interrupt;
  Session session(interrupt.stop(), Interrupt::signalled(), ::isatty(STDERR_FILENO) == 1);
  Status const status = command.run(session);
  if (session.stopped() && !status) return report_failure("interrupted", ExitStatus::interrupted);
  if (!status) return report_failure(status.message(), ExitStatus::failure);
  return static_cast<int>(ExitStatus::success);
}

int run_program(int argc, char** argv) {
  CLI::App app(kDescription, "sida");
  app.formatter(std::make_shared<WrappedHelp>());
  app.footer(kManual);
  app.set_version_flag("--version", "sida " SIDA_VERSION);
  app.require_subcommand(1);
  auto const commands = make_commands();
  std::vector<CLI::App*> parsers;
  for (auto const& command : commands) {
    auto* const parser = app.add_subcommand(command->name(), command->summary());
    parser->footer(command->manual());
    command->add_options(*parser);
    parsers.push_back(parser);
  }
  std::string names;
  for (auto const& command : commands) names += (names.empty() ? "" : ", ") + command->name();
  std::string const first = argc > 1 ? argv[1] : "";
  bool const is_known = std::ranges::any_of(commands, [&](auto const& command) { return command->name() == first; });
  if (!first.starts_with('-') && !is_known) {
    return report_failure((argc > 1 ? "'" + first + "' is no command" : "no command") + ": give one of " + names,
                          ExitStatus::usage);
  }
  Command* chosen = nullptr;
  try {
    app.parse(argc, argv);
    for (std::size_t i = 0; i < commands.size(); ++i) {
      if (parsers[i]->parsed()) chosen = commands[i].get();
    }
    if (chosen != nullptr) chosen->check();
  } catch (CLI::Success const& wanted) {  // --help, --version
    std::ostringstream text;
    app.exit(wanted, text);
    if (Status const status = print(text.str()); !status) return report_failure(status.message(), ExitStatus::failure);
    return static_cast<int>(ExitStatus::success);
  } catch (CLI::ParseError const& error) {
    return report_failure(error.what(), ExitStatus::usage);
  }
  return run_command(*chosen);
}

}  // namespace
}  // namespace sida::cli

int main(int argc, char** argv) {
  sida::cli::fill_standard_descriptors();
  std::signal(SIGPIPE, SIG_IGN);  // a pipe that nobody reads is an error like a full disk, and leaves as little behind
  try {
    return sida::cli::run_program(argc, argv);
  } catch (std::exception const& error) {  // out of memory, most likely
    return sida::cli::report_failure(error.what(), sida::cli::ExitStatus::failure);
  }
}
