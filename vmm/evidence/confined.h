#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ivmm::evidence {

/// What a confined process may use.
struct Confinement {
    std::vector<int> descriptors;  ///< that stay open in it
    uint64_t memory_bytes = uint64_t{4} << 30;
    uint32_t cpu_s = 600;
};

/// Writes a line to whoever waits for run_confined(); false: there is nobody any more.
using TellLine = std::function<bool(std::string_view)>;

/// Runs `work`, which reads what an attacker has made, in a child process that can compute, read
/// its descriptors, tell lines, and nothing else (seccomp): it opens nothing, sends nothing and
/// starts nothing. Each line is handed to `on_line`, on the caller's thread; an error of it ends
/// the child.
///
/// Only in a process of one thread. Errors: those of `work`; it has crashed, or used too much; its
/// lines are longer than a MiB.
Result<void> run_confined(const Confinement& confinement,
                          const std::function<Result<void>(const TellLine&)>& work,
                          const std::function<Result<void>(std::string_view)>& on_line);

}  // namespace ivmm::evidence
