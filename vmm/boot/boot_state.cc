#include "vmm/boot/boot_state.h"

#include <array>

#include "vmm/boot/layout.h"

namespace ivmm {
namespace {

constexpr uint64_t kCr0Pe = 1 << 0;
constexpr uint64_t kCr0Et = 1 << 4;
constexpr uint64_t kCr0Pg = uint64_t{1} << 31;
constexpr uint64_t kCr4Pae = 1 << 5;
constexpr uint64_t kEferLme = 1 << 8;
constexpr uint64_t kEferLma = 1 << 10;
constexpr uint64_t kRflagsReserved = 1 << 1;  // always set; interrupts are off

constexpr uint8_t kSegmentReadWrite = 3;     // data, accessed
constexpr uint8_t kSegmentReadExecute = 11;  // code, accessed
constexpr uint8_t kSegmentBusyTss = 11;

// __BOOT_CS and __BOOT_DS of the 64-bit Linux boot protocol.
constexpr uint16_t kBootCs = 0x10;
constexpr uint16_t kBootDs = 0x18;
constexpr std::array<uint64_t, 4> kGdt = {
    0, 0,
    0x00af9b000000ffff,  // flat 64-bit code
    0x00cf93000000ffff,  // flat data
};

constexpr uint64_t kTablePresentWritable = 0x03;
constexpr uint64_t kTableLargePage = 0x80;
constexpr uint64_t kTableEntries = 512;
constexpr uint64_t kMappedGib = 4;

kvm_segment flat_segment(uint16_t selector, uint8_t type) {
    kvm_segment segment{};
    segment.limit = 0xffffffff;
    segment.selector = selector;
    segment.type = type;
    segment.present = 1;
    segment.s = 1;
    segment.db = 1;
    segment.g = 1;
    return segment;
}

}  // namespace

void BootState::apply(kvm_regs& regs, kvm_sregs& sregs) const {
    const bool long_mode = protocol == Protocol::kLinux64;

    regs = {};
    regs.rip = entry;
    regs.rflags = kRflagsReserved;
    (long_mode ? regs.rsi : regs.rbx) = boot_info;

    sregs.cs = flat_segment(kBootCs, kSegmentReadExecute);
    sregs.ds = flat_segment(kBootDs, kSegmentReadWrite);
    sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
    sregs.tr = {};
    sregs.tr.limit = 0x67;  // the least size of a TSS, as PVH prescribes
    sregs.tr.type = kSegmentBusyTss;
    sregs.tr.present = 1;
    sregs.gdt = {};
    sregs.idt = {};

    sregs.cr0 = kCr0Pe | kCr0Et;
    sregs.cr2 = sregs.cr3 = sregs.cr4 = 0;
    sregs.efer = 0;
    if (long_mode) {
        sregs.cs.l = 1;
        sregs.cs.db = 0;
        sregs.gdt.base = layout::kBootGdt;
        sregs.gdt.limit = sizeof kGdt - 1;
        sregs.cr0 |= kCr0Pg;
        sregs.cr3 = layout::kPageTables;
        sregs.cr4 = kCr4Pae;
        sregs.efer = kEferLme | kEferLma;
    }
}

bool write_linux64_tables(GuestMemory& memory) {
    using Table = std::array<uint64_t, kTableEntries>;
    static_assert(sizeof(Table) == kPageSize);
    constexpr Gpa kPdpt = layout::kPageTables + kPageSize;
    constexpr Gpa kDirectories = kPdpt + kPageSize;

    Table pml4{};
    pml4[0] = kPdpt | kTablePresentWritable;
    Table pdpt{};
    bool ok = memory.write(layout::kPageTables, pml4) && memory.write(layout::kBootGdt, kGdt);
    for (uint64_t gib = 0; gib < kMappedGib; ++gib) {
        pdpt[gib] = (kDirectories + gib * kPageSize) | kTablePresentWritable;
        Table directory;
        for (uint64_t i = 0; i < kTableEntries; ++i) {
            // 2 MiB pages: every processor with long mode has them.
            directory[i] =
                ((gib * kTableEntries + i) << 21) | kTablePresentWritable | kTableLargePage;
        }
        ok = ok && memory.write(kDirectories + gib * kPageSize, directory);
    }
    return ok && memory.write(kPdpt, pdpt);
}

}  // namespace ivmm
