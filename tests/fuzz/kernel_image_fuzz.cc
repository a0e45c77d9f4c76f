#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "base/unique_fd.h"
#include "vmm/boot/kernel_loader.h"

/// Kernel images of any content: an error, or a guest that starts somewhere in its RAM.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace ivmm;
    constexpr uint64_t kMemory = uint64_t{32} << 20;
    const UniqueFd image(::memfd_create("kernel", MFD_CLOEXEC));
    auto memory = GuestMemory::create(kMemory);
    if (!image || !memory || ::write(image.get(), data, size) != static_cast<ssize_t>(size)) {
        std::abort();
    }
    KernelSpec spec;
    spec.kernel = "/proc/self/fd/" + std::to_string(image.get());
    spec.cmdline = "console=ttyS0";
    if (size % 2 == 1) {
        spec.initrd = spec.kernel;
    }
    const auto state = load_kernel(**memory, spec);
    if (state ? !(*memory)->contains(state->entry, 1) : state.error().message.empty()) {
        std::abort();
    }
    return 0;
}
