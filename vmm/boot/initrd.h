#pragma once

#include <string>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace ivmm {

/// Where the initrd lies; size 0 if there is none.
struct LoadedInitrd {
    Gpa start = 0;
    uint64_t size = 0;
};

/// Reads the file into the highest pages of low RAM below `limit`, if they are above
/// `kernel_end`. An empty path is no initrd.
Result<LoadedInitrd> load_initrd(const std::string& path, GuestMemory& memory, Gpa kernel_end,
                                 Gpa limit);

}  // namespace ivmm
