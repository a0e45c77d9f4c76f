#include "vmm/boot/kernel_loader.h"

#include "vmm/boot/bzimage.h"
#include "vmm/boot/elf_loader.h"
#include "vmm/boot/image_file.h"
#include "vmm/boot/initrd.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/pvh.h"

namespace ivmm {
namespace {

/// An ELF kernel takes its initrd anywhere in low RAM.
constexpr Gpa kElfInitrdLimit = kLowRamEnd;

Result<void> write_cmdline(GuestMemory& memory, const std::string& cmdline) {
    // With the terminating zero.
    const auto text = std::as_bytes(std::span(cmdline.c_str(), cmdline.size() + 1));
    if (text.size() > layout::kCmdlineSize) {
        return fail_as(ErrorKind::kUsage, "the kernel command line has {} bytes; at most {} fit",
                       cmdline.size(), layout::kCmdlineSize - 1);
    }
    if (!memory.write(layout::kCmdline, text)) {
        return fail("the guest has no RAM at {:#x}", layout::kCmdline);
    }
    return {};
}

}  // namespace

Result<BootState> load_kernel(GuestMemory& memory, const KernelSpec& spec) {
    IVMM_ASSIGN(const auto file, ImageFile::open("kernel", spec.kernel));
    IVMM_TRY(write_cmdline(memory, spec.cmdline));
    if (is_elf(file)) {
        IVMM_ASSIGN(const auto kernel, load_elf(file, memory));
        IVMM_ASSIGN(const auto initrd,
                    load_initrd(spec.initrd, memory, kernel.end, kElfInitrdLimit));
        return prepare_pvh(memory, kernel.entry, initrd, spec.rsdp);
    }
    if (is_bzimage(file)) {
        IVMM_ASSIGN(const auto kernel, load_bzimage(file, memory));
        IVMM_ASSIGN(const auto initrd,
                    load_initrd(spec.initrd, memory, kernel.end, kernel.initrd_limit));
        return prepare_linux64(memory, kernel, spec.cmdline.size(), initrd, spec.rsdp);
    }
    return fail_as(ErrorKind::kUsage, "{} is neither an ELF kernel nor a bzImage", file.name());
}

}  // namespace ivmm
