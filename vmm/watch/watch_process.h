#pragma once

#include <string>

namespace ivmm::watch {

struct WatchOptions {
    std::string rules_file;
    std::string guest;
    std::string eve_socket;  ///< empty: none; so are the others
    std::string eve_file;
    std::string mirror;  ///< interface of a switch's mirror port
    std::string log_file;
    bool dry_run = false;
};

/// Watches over a guest until a SIGTERM, SIGINT or SIGHUP comes. Prints a line on standard output
/// when it is there. Returns the exit code; errors have been printed.
int run_watch(const WatchOptions& options);

}  // namespace ivmm::watch
