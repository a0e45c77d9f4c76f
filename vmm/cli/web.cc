#include <CLI/CLI.hpp>
#include <memory>

#include "vmm/cli/live.h"
#include "vmm/live/live_pages.h"

namespace ivmm::cli {

void add_web(CLI::App& app, Action& action) {
    auto* const command =
        app.add_subcommand("web", "What `ivmm top` shows, as a web page that changes nothing");
    const auto options = std::make_shared<live::HttpServer::Options>();
    options->address = "127.0.0.1:8077";
    add_web_options(*command, *options, "Where to serve the page, and /metrics");
    command->footer(
        "Runs in the foreground, until it is told to end. There is no password: from another host, "
        "use `ssh -L 8077:127.0.0.1:8077 HOST`.\n"
        "Example:\n  ivmm web --listen 127.0.0.1:8077");
    command->callback([&action, options] {
        action = [options] {
            live::LivePages pages;
            const auto served =
                live::serve_pages(*options, "the live view",
                                  [&](const std::string& path) { return pages.get_site(path); });
            return served ? 0 : report(served.error());
        };
    });
}

}  // namespace ivmm::cli
