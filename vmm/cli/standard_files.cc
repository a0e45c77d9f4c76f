#include "vmm/cli/standard_files.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/unique_fd.h"

namespace ivmm {

void redirect(const std::string& path, int flags, std::initializer_list<int> descriptors) {
    UniqueFd file(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) {
        file.reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
    }
    for (const int descriptor : descriptors) {
        ::dup2(file.get(), descriptor);
    }
}

}  // namespace ivmm
