#pragma once

#include "vmm/cli/cli.h"
#include "vmm/live/http_server.h"

/// The commands that show what runs on this host.
namespace ivmm::cli {

void add_top(CLI::App& app, Action& action);
void add_web(CLI::App& app, Action& action);
void add_metrics(CLI::App& app, Action& action);

/// Adds --listen, --anyone and --host-name. `what`: what --listen does.
void add_web_options(CLI::App& command, live::HttpServer::Options& options, const char* what);

}  // namespace ivmm::cli
