#pragma once

#include <fmt/core.h>

#include <cstdio>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace CLI {
class App;  // CLI11 takes seconds to compile: its users alone include it
}

/// The command line. Exit codes: 0 ok, 1 failed, 2 bad usage or unusable host.
namespace ivmm::cli {

/// The whole program. `argv` as main() gets it.
int run_command_line(int argc, char** argv);

/// What is to be done once the command line has been understood; returns the exit code.
using Action = std::function<int()>;

// Each adds one command; parsing it sets the action.
void add_run(CLI::App& app, Action& action);
void add_ls(CLI::App& app, Action& action);
void add_status(CLI::App& app, Action& action);
void add_pause(CLI::App& app, Action& action);
void add_resume(CLI::App& app, Action& action);
void add_stop(CLI::App& app, Action& action);
void add_snapshot(CLI::App& app, Action& action);
void add_restore(CLI::App& app, Action& action);
void add_rm(CLI::App& app, Action& action);
void add_redact(CLI::App& app, Action& action);
void add_evidence(CLI::App& app, Action& action);
void add_console(CLI::App& app, Action& action);
void add_fork(CLI::App& app, Action& action);
void add_standby(CLI::App& app, Action& action);
void add_replicate(CLI::App& app, Action& action);
void add_keys(CLI::App& app, Action& action);
void add_standby_process(CLI::App& app, Action& action);
void add_overlay(CLI::App& app, Action& action);
void add_watch(CLI::App& app, Action& action);

/// Prints "ivmm: message" on standard error. That may be a terminal that has gone: no errors.
void say(std::string_view message);
/// Says the error's message. Returns the exit code for the error.
int report(const Error& error);

/// Prints on standard output. Errors show at the end, as the exit code of the program.
template <class... Args>
void print(fmt::format_string<Args...> format, Args&&... args) {
    const std::string text = fmt::format(format, std::forward<Args>(args)...);
    std::fwrite(text.data(), 1, text.size(), stdout);
}

}  // namespace ivmm::cli
