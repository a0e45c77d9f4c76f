#pragma once

namespace ivmm::live {

struct TopOptions {
    bool once = false;     ///< print one picture and end
    bool as_json = false;  ///< print one host_state() and end
};

/// `ivmm top`. Returns the exit code; errors have been printed.
int run_top(const TopOptions& options);

}  // namespace ivmm::live
