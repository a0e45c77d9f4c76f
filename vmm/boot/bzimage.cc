#include "vmm/boot/bzimage.h"

#include <algorithm>
#include <bit>
#include <cstddef>

#include "base/checked.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/memory_map.h"

namespace ivmm {
namespace {

constexpr uint16_t kBootFlag = 0xaa55;
constexpr uint32_t kHeaderMagic = 0x53726448;  // "HdrS"
constexpr uint16_t kLeastVersion = 0x020c;     // the first with xloadflags
constexpr uint64_t kSectorSize = 512;
constexpr uint64_t kParagraphSize = 16;
constexpr uint64_t kDefaultSetupSectors = 4;
constexpr uint64_t kEntry64 = 0x200;  // from the start of the protected-mode part
constexpr uint8_t kUnknownLoader = 0xff;

constexpr size_t kHeaderStart = offsetof(boot_params, hdr);
constexpr size_t kHeaderLimit = offsetof(boot_params, edd_mbr_sig_buffer);
/// The header ends where the jump instruction at 0x200 leads to; its offset byte is at 0x201.
constexpr size_t kJumpOffset = 0x201;
constexpr size_t kJumpBase = 0x202;

/// The setup header in boot_params that are zero otherwise, as the protocol prescribes.
Result<boot_params> read_setup_header(const ImageFile& file) {
    IVMM_ASSIGN(const auto jump, file.read<uint8_t>(kJumpOffset));
    const size_t end = std::min<size_t>(kJumpBase + jump, kHeaderLimit);
    boot_params params{};
    IVMM_TRY(file.read(kHeaderStart,
                       writable_bytes_of(params).subspan(kHeaderStart, end - kHeaderStart)));
    const setup_header& header = params.hdr;
    if (header.version < kLeastVersion || (header.xloadflags & XLF_KERNEL_64) == 0 ||
        (header.loadflags & LOADED_HIGH) == 0) {
        return fail_as(ErrorKind::kUsage,
                       "{} is a bzImage without a 64-bit entry point (boot protocol {}.{}); "
                       "ivmm boots x86-64 kernels from Linux 3.8 on",
                       file.name(), header.version >> 8, header.version & 0xff);
    }
    return params;
}

}  // namespace

bool is_bzimage(const ImageFile& file) {
    constexpr size_t kFlagAt = kHeaderStart + offsetof(setup_header, boot_flag);
    constexpr size_t kMagicAt = kHeaderStart + offsetof(setup_header, header);
    const auto flag = file.read<uint16_t>(kFlagAt);
    const auto magic = file.read<uint32_t>(kMagicAt);
    return flag && magic && *flag == kBootFlag && *magic == kHeaderMagic;
}

Result<LoadedBzImage> load_bzimage(const ImageFile& file, GuestMemory& memory) {
    IVMM_ASSIGN(const boot_params params, read_setup_header(file));
    const setup_header& header = params.hdr;

    const uint64_t sectors = header.setup_sects != 0 ? header.setup_sects : kDefaultSetupSectors;
    const uint64_t payload = (1 + sectors) * kSectorSize;
    const uint64_t payload_size = header.syssize * kParagraphSize;  // 36 bits at most
    if (payload_size <= kEntry64 || !range_within(payload, payload_size, file.size())) {
        return fail_as(ErrorKind::kUsage,
                       "{} is truncated: it has {} bytes, its header speaks of {} more at {:#x}",
                       file.name(), file.size(), payload_size, payload);
    }

    // A relocatable kernel could lie elsewhere, but never lower: it would move up to this address.
    const Gpa start = header.pref_address;
    if (start < layout::kKernelStart || !std::has_single_bit(header.kernel_alignment) ||
        (header.relocatable_kernel != 0 && start % header.kernel_alignment != 0)) {
        return fail_as(
            ErrorKind::kUsage,
            "{} has an impossible setup header: preferred address {:#x}, alignment {:#x}",
            file.name(), start, uint32_t{header.kernel_alignment});
    }
    const uint64_t needed = std::max<uint64_t>(header.init_size, payload_size);
    const uint64_t ram = memory.regions().front().size;
    if (!range_within(start, needed, ram)) {
        return fail_as(
            ErrorKind::kUsage,
            "{} does not fit into the guest's memory: it unpacks itself into {} bytes at "
            "{:#x}, and RAM ends at {:#x}; give the guest more memory",
            file.name(), needed, start, ram);
    }
    IVMM_TRY(file.load(payload, payload_size, memory, start));
    return LoadedBzImage{start, start + needed, uint64_t{header.initrd_addr_max} + 1,
                         header.cmdline_size, params};
}

Result<BootState> prepare_linux64(GuestMemory& memory, const LoadedBzImage& kernel,
                                  uint64_t cmdline_size, const LoadedInitrd& initrd, Gpa rsdp) {
    if (cmdline_size > kernel.cmdline_limit) {
        return fail_as(ErrorKind::kUsage,
                       "the kernel command line has {} bytes, and this kernel takes {}",
                       cmdline_size, kernel.cmdline_limit);
    }
    boot_params params = kernel.params;
    params.hdr.type_of_loader = kUnknownLoader;
    params.hdr.cmd_line_ptr = static_cast<uint32_t>(layout::kCmdline);
    params.hdr.ramdisk_image = static_cast<uint32_t>(initrd.start);
    params.hdr.ramdisk_size = static_cast<uint32_t>(initrd.size);
    params.hdr.setup_data = 0;
    params.acpi_rsdp_addr = rsdp;
    for (const auto& range : memory_map(memory)) {
        params.e820_table[params.e820_entries++] = {range.start, range.size,
                                                    static_cast<uint32_t>(range.type)};
    }
    if (!memory.write(layout::kBootInfo, params) || !write_linux64_tables(memory)) {
        return fail("the guest has no RAM below 1 MiB");
    }
    return BootState{BootState::Protocol::kLinux64, kernel.start + kEntry64, layout::kBootInfo};
}

}  // namespace ivmm
