#include "tests/support/own_mounts.h"

#include <sched.h>
#include <sys/mount.h>

#include <fstream>
#include <string>

namespace ivmm::test {

bool enter_own_mounts() {
    if (::unshare(CLONE_NEWNS) != 0) {
        return false;
    }
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0) {
        return true;
    }
    // In a chroot, the root directory may be no mount point; what is mounted in it are the others.
    std::ifstream mounts("/proc/self/mountinfo");
    std::string line;
    bool any = false;
    while (std::getline(mounts, line)) {
        size_t begin = 0;
        for (int i = 0; i < 4; ++i) {
            begin = line.find(' ', begin) + 1;
        }
        const std::string point = line.substr(begin, line.find(' ', begin) - begin);
        any |= ::mount(nullptr, point.c_str(), nullptr, MS_PRIVATE, nullptr) == 0;
    }
    return any;
}

}  // namespace ivmm::test
