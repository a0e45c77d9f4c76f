#include <CLI/CLI.hpp>
#include <memory>

#include "vmm/cli/live.h"
#include "vmm/live/host_metrics.h"
#include "vmm/live/live_pages.h"

namespace ivmm::cli {
namespace {

int print_metrics() {
    live::RunningProcesses processes;
    const auto metrics = live::host_metrics(processes);
    if (!metrics) {
        return report(metrics.error());
    }
    print("{}", metrics->to_text());
    return 0;
}

}  // namespace

void add_metrics(CLI::App& app, Action& action) {
    auto* const command = app.add_subcommand(
        "metrics", "What everything of ivmm on this host counts, as Prometheus reads it");
    const auto options = std::make_shared<live::HttpServer::Options>();
    add_web_options(*command, *options, "Serve it at http://HOST:PORT/metrics instead");
    command->footer(
        "Examples:\n"
        "  ivmm metrics\n"
        "  ivmm metrics --listen 127.0.0.1:9477");
    command->callback([&action, options] {
        action = [options] {
            if (options->address.empty()) {
                return print_metrics();
            }
            live::LivePages pages;
            const auto served = live::serve_pages(
                *options, "metrics", [&](const std::string& path) { return pages.get(path); });
            return served ? 0 : report(served.error());
        };
    });
}

}  // namespace ivmm::cli
