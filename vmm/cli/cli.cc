#include "vmm/cli/cli.h"

#include <CLI/CLI.hpp>

#include "base/log.h"
#include "vmm/control/version.h"

namespace ivmm::cli {
namespace {

constexpr const char* kExamples = R"(Examples:
  ivmm run guest.toml                      a guest with its console on this terminal
  ivmm run -d --name web --kernel vmlinux --disk root.img --cmdline "root=/dev/vda"
  ivmm ls
  ivmm stop web
Exit codes: 0 ok, 1 failed, 2 bad usage or unusable host.)";

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
    add_console(app, action);
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& help_or_version) {
        return app.exit(help_or_version);
    } catch (const CLI::ParseError& error) {
        const auto given = app.get_subcommands();
        const std::string_view first = argc > 1 ? argv[1] : "";
        if (given.empty() && !first.empty() && !first.starts_with('-')) {
            return report(
                {ErrorKind::kUsage, 0, fmt::format("no command '{}'; see `ivmm --help`", first)});
        }
        return report({ErrorKind::kUsage, 0,
                       fmt::format("{}; see `ivmm {}--help`", error.what(),
                                   given.empty() ? "" : given.front()->get_name() + " ")});
    }
    const int code = action();
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        return report(fail_errno("cannot write to standard output").error);
    }
    return code;
}

}  // namespace ivmm::cli
