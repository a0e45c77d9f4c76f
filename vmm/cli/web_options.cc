#include "vmm/cli/live.h"

#include <CLI/CLI.hpp>

namespace ivmm::cli {

void add_web_options(CLI::App& command, live::HttpServer::Options& options, const char* what) {
    command.add_option("--listen", options.address, what)->option_text("HOST:PORT");
    command.add_flag("--anyone", options.anyone,
                     "HOST may be an address that others reach: they all may read then, without a "
                     "password");
    command
        .add_option(
            "--host-name", options.names,
            "A name that browsers may call this host by, besides localhost; may be repeated")
        ->allow_extra_args(false);
}

}  // namespace ivmm::cli
