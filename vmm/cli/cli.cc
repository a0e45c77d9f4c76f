#include "vmm/cli/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/log.h"
#include "vmm/cli/live.h"
#include "vmm/cli/switch.h"
#include "vmm/control/version.h"

namespace ivmm::cli {
namespace {

constexpr const char* kExamples = R"(Examples:
  ivmm run guest.toml                      a guest with its console on this terminal
  ivmm run -d --name web --kernel vmlinux --disk root.img --cmdline "root=/dev/vda"
  ivmm ls
  ivmm stop web
Exit codes: 0 ok, 1 failed, 2 bad usage or unusable host.)";

/// What is wrong with the arguments, in one line.
Error usage_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
    const CLI::App* command = &app;
    const auto all = [](const CLI::App*) { return true; };
    std::string path = "ivmm ";
    int next = 1;
    while (next < argc) {
        const auto subs = command->get_subcommands(all);
        const auto sub = std::find_if(subs.begin(), subs.end(), [&](const CLI::App* candidate) {
            return candidate->check_name(argv[next]);
        });
        if (sub == subs.end()) {
            break;
        }
        command = *sub;
        path += command->get_name() + " ";
        ++next;
    }
    const bool wants_command = !command->get_subcommands(all).empty();
    if (wants_command && next < argc && argv[next][0] != '\0' && argv[next][0] != '-') {
        return {ErrorKind::kUsage, 0,
                fmt::format("no command '{}'; see `{}--help`", argv[next], path)};
    }
    return {ErrorKind::kUsage, 0, fmt::format("{}; see `{}--help`", error.what(), path)};
}

}  // namespace

void say(std::string_view message) {
    const std::string line = fmt::format("ivmm: {}\n", message);
    std::fwrite(line.data(), 1, line.size(), stderr);
}

int report(const Error& error) {
    say(error.message);
    return exit_code(error.kind);
}

int run_command_line(int argc, char** argv) {
    CLI::App app("Virtual machines on /dev/kvm, made to be forked while they run.", "ivmm");
    app.set_version_flag("--version", fmt::format("ivmm {}", kVersion));
    app.add_flag_callback(
        "--verbose", [] { log::set_level(log::Level::kDebug); }, "Log more");
    app.require_subcommand(1);
    app.fallthrough();
    app.footer(kExamples);
    app.get_formatter()->column_width(34);

    Action action;
    add_run(app, action);
    add_ls(app, action);
    add_status(app, action);
    add_pause(app, action);
    add_resume(app, action);
    add_stop(app, action);
    add_snapshot(app, action);
    add_restore(app, action);
    add_rm(app, action);
    add_redact(app, action);
    add_evidence(app, action);
    add_console(app, action);
    add_standby(app, action);
    add_replicate(app, action);
    add_keys(app, action);
    add_fork(app, action);
    add_standby_process(app, action);
    add_overlay(app, action);
    add_switch(app, action);
    add_divert(app, action);
    add_undivert(app, action);
    add_flows(app, action);
    add_watch(app, action);
    add_top(app, action);
    add_web(app, action);
    add_metrics(app, action);
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& help_or_version) {
        return app.exit(help_or_version);
    } catch (const CLI::ParseError& error) {
        return report(usage_error(app, error, argc, argv));
    }
    const int code = action();
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        return report(fail_errno("cannot write to standard output").error);
    }
    return code;
}

}  // namespace ivmm::cli
