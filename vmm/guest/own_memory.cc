#include "vmm/guest/own_memory.h"

#include <fstream>
#include <string>

namespace ivmm {

uint64_t own_memory_bytes() {
    std::ifstream status("/proc/self/status");
    uint64_t kibibytes = 0;
    for (std::string word; status >> word;) {
        if (word == "RssAnon:" || word == "VmSwap:") {
            uint64_t part = 0;
            status >> part;
            kibibytes += part;
        }
    }
    return kibibytes << 10;
}

}  // namespace ivmm
