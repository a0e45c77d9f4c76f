#include "vmm/boot/initrd.h"

#include <algorithm>

#include "base/checked.h"
#include "vmm/boot/image_file.h"

namespace ivmm {

Result<LoadedInitrd> load_initrd(const std::string& path, GuestMemory& memory, Gpa kernel_end,
                                 Gpa limit) {
    if (path.empty()) {
        return LoadedInitrd{};
    }
    IVMM_ASSIGN(const auto file, ImageFile::open("initrd", path));
    const Gpa end = std::min<Gpa>(limit, memory.regions().front().size);
    if (file.size() > end || align_down(end - file.size(), kPageSize) < kernel_end) {
        return fail_as(ErrorKind::kUsage,
                       "{} of {} bytes does not fit between the kernel's end at {:#x} and {:#x}; "
                       "give the guest more memory",
                       file.name(), file.size(), kernel_end, end);
    }
    const LoadedInitrd initrd{align_down(end - file.size(), kPageSize), file.size()};
    IVMM_TRY(file.load(0, initrd.size, memory, initrd.start));
    return initrd;
}

}  // namespace ivmm
