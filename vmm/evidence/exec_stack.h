#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace ivmm::evidence {

/// A program that Linux has started, as the top of its stack tells: nobody needs the kernel's
/// symbols for that, and it stays in memory after the program's end, until the page is used again.
struct StartedProgram {
    std::string file;                    ///< that was executed
    std::vector<std::string> arguments;  ///< the program's name first
    std::vector<std::string> environment;
    bool is_cut = false;  ///< it was more than a page: some arguments are missing

    auto operator<=>(const StartedProgram&) const = default;
};

/// Whether a page is the uppermost of a new program's stack, and what it says then. The page ends,
/// from above, with eight zero bytes, the file's name, the environment and the arguments (Linux,
/// fs/exec.c); anybody may have written it. Which of the texts are arguments is told by the names
/// of variables, which are taken to have no small letters.
std::optional<StartedProgram> find_started_program(ConstByteSpan page);

}  // namespace ivmm::evidence
