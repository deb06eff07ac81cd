#pragma once

#include <cstdio>
#include <exception>
#include <string>

#include <CLI/CLI.hpp>

#include "sida/core/result.hpp"

namespace sida::bench {

/// What every bench program's `main` does: options, the bench, and on failure one line on stderr and an exit status, 2
/// for options and 1 for the rest. `Options` says what it takes by `add_options(app, options)`.
template <class Options, class Run>
int run_program(int argc, char** argv, char const* name, char const* description, Run const& run) {
  auto const fail = [name](char const* message, int status) {
    std::fprintf(stderr, "%s: %s\n", name, message);
    return status;
  };
  try {
    CLI::App app(description, name);
    Options options;
    add_options(app, options);
    try {
      app.parse(argc, argv);
    } catch (CLI::Success const& wanted) {  // --help
      return app.exit(wanted);
    } catch (CLI::ParseError const& error) {
      return fail(error.what(), 2);
    }
    Status const status = run(options);
    return status ? 0 : fail(status.message().c_str(), 1);
  } catch (std::exception const& error) {
    return fail(error.what(), 1);
  }
}

}  // namespace sida::bench
