#pragma once

#include <string>
#include <vector>

#include "net/switch.h"

namespace ivmm {

struct SwitchOptions {
    struct TapSpec {
        std::string name;
        bool existing = false;
        std::string host_address;  ///< empty: none
    };

    std::string name;
    std::vector<TapSpec> uplinks;
    std::vector<TapSpec> sinks;
    std::vector<TapSpec> mirrors;
    std::string policy = "strict";  ///< a preset or a file
    std::string capture_dir;
    std::string events_file;
    net::Switch::Options limits;
    bool ends_unused = false;  ///< when no guest has been there for 10 s
};

/// "NAME[,existing][,host=ADDRESS/PREFIX]". Errors: kUsage.
Result<SwitchOptions::TapSpec> parse_tap_spec(const std::string& text);

/// Runs a switch in this process, which has one thread, until a SIGTERM, SIGINT or SIGHUP comes
/// or, if it is to, nobody uses it.
/// Prints a line on standard output when it is there. Returns the exit code; errors have been
/// printed.
int run_switch(const SwitchOptions& options);

}  // namespace ivmm
