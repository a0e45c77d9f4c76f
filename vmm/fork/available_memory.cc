#include "vmm/fork/available_memory.h"

#include <fstream>
#include <string>

namespace ivmm {

uint64_t available_memory() {
    std::ifstream meminfo("/proc/meminfo");
    for (std::string word; meminfo >> word;) {
        uint64_t kibibytes = 0;
        if (word == "MemAvailable:" && meminfo >> kibibytes) {
            return kibibytes << 10;
        }
    }
    return 0;
}

}  // namespace ivmm
