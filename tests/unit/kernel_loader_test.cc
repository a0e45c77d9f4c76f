#include "vmm/boot/kernel_loader.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/unique_fd.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/memory_map.h"

namespace ivmm {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMemory = uint64_t{4} << 20;

/// A file without a name on a disk.
class TestFile {
 public:
    explicit TestFile(ConstByteSpan bytes) : fd_(::memfd_create("image", MFD_CLOEXEC)) {
        EXPECT_EQ(::write(fd_.get(), bytes.data(), bytes.size()),
                  static_cast<ssize_t>(bytes.size()));
    }
    std::string path() const { return "/proc/self/fd/" + std::to_string(fd_.get()); }

 private:
    UniqueFd fd_;
};

/// The least ELF kernel: one segment at 1 MiB that is all of the file.
struct LeastElf {
    Elf64_Ehdr header{};
    Elf64_Phdr segments[2]{};
    Elf64_Nhdr note{4, 4, 18};
    char name[4] = {'X', 'e', 'n', '\0'};
    uint32_t entry = 0x100000;

    LeastElf() {
        std::memcpy(header.e_ident, ELFMAG, SELFMAG);
        header.e_ident[EI_CLASS] = ELFCLASS64;
        header.e_ident[EI_DATA] = ELFDATA2LSB;
        header.e_machine = EM_X86_64;
        header.e_phoff = sizeof header;
        header.e_phnum = 2;
        header.e_phentsize = sizeof(Elf64_Phdr);
        segments[0].p_type = PT_LOAD;
        segments[0].p_paddr = 0x100000;
        segments[0].p_filesz = segments[0].p_memsz = sizeof(LeastElf);
        segments[1].p_type = PT_NOTE;
        segments[1].p_offset = offsetof(LeastElf, note);
        segments[1].p_filesz = sizeof note + sizeof name + sizeof entry;
    }
};

std::string refusal(const std::string& kernel, const std::string& initrd = "",
                    const std::string& cmdline = "") {
    auto memory = *GuestMemory::create(kMemory);
    const auto result = load_kernel(*memory, {kernel, initrd, cmdline, 0});
    EXPECT_FALSE(result);
    EXPECT_TRUE(!result && result.error().kind == ErrorKind::kUsage);
    return result ? "" : result.error().message;
}

TEST(KernelLoader, HandsOverPvhStartInfo) {
    auto memory = *GuestMemory::create(kMemory);
    const TestFile kernel(bytes_of(LeastElf{}));
    using Content = std::array<uint8_t, 5000>;
    const Content content{1, 2, 3};
    const TestFile initrd(bytes_of(content));
    const auto state = load_kernel(*memory, {kernel.path(), initrd.path(), "hello=1", 0xe0000});
    ASSERT_TRUE(state) << state.error().message;
    EXPECT_EQ(state->protocol, BootState::Protocol::kPvh);
    EXPECT_EQ(state->entry, 0x100000U);

    const Gpa info = state->boot_info;
    EXPECT_EQ(memory->read<uint32_t>(info), 0x336ec578U);
    EXPECT_EQ(memory->read<uint32_t>(info + 4), 1U);
    EXPECT_EQ(memory->read<uint32_t>(info + 12), 1U);  // modules
    EXPECT_EQ(memory->read<uint64_t>(info + 32), 0xe0000U);
    const Gpa cmdline = *memory->read<uint64_t>(info + 24);
    std::array<char, 8> text{};
    ASSERT_TRUE(memory->read(cmdline, writable_bytes_of(text)));
    EXPECT_STREQ(text.data(), "hello=1");

    const Gpa modules = *memory->read<uint64_t>(info + 16);
    const Gpa start = *memory->read<uint64_t>(modules);
    EXPECT_EQ(start, kMemory - 8192);
    EXPECT_EQ(memory->read<uint64_t>(modules + 8), content.size());
    EXPECT_EQ(memory->read<Content>(start), content);

    const Gpa map = *memory->read<uint64_t>(info + 40);
    const auto expected = memory_map(*memory);
    ASSERT_EQ(memory->read<uint32_t>(info + 48), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(memory->read<uint64_t>(map + 24 * i), expected[i].start);
        EXPECT_EQ(memory->read<uint64_t>(map + 24 * i + 8), expected[i].size);
        EXPECT_EQ(memory->read<uint32_t>(map + 24 * i + 16),
                  static_cast<uint32_t>(expected[i].type));
    }
}

TEST(KernelLoader, RefusesWhatIsNoKernelFile) {
    EXPECT_THAT(refusal("/nonexistent/vmlinux"),
                HasSubstr("cannot open kernel /nonexistent/vmlinux: No such file"));
    EXPECT_THAT(refusal("/"), HasSubstr("a directory"));
    EXPECT_THAT(refusal("/dev/zero"), HasSubstr("a device"));
    const TestFile empty({});
    EXPECT_THAT(refusal(empty.path()), HasSubstr("is empty"));
    const std::array<char, 600> text{'#', '!'};
    const TestFile script(bytes_of(text));
    EXPECT_THAT(refusal(script.path()), HasSubstr("neither an ELF kernel nor a bzImage"));
    const TestFile start(bytes_of(text).first(1));
    EXPECT_THAT(refusal(start.path()), HasSubstr("neither an ELF kernel nor a bzImage"));
}

TEST(KernelLoader, PipeDoesNotHang) {
    const std::string path = testing::TempDir() + "ivmm-kernel-pipe-" + std::to_string(::getpid());
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    EXPECT_THAT(refusal(path), HasSubstr("a pipe"));
    ::unlink(path.c_str());
}

TEST(KernelLoader, RefusesInitrdThatDoesNotFit) {
    const TestFile kernel(bytes_of(LeastElf{}));
    EXPECT_THAT(refusal(kernel.path(), "/nonexistent/initrd"), HasSubstr("cannot open initrd"));
    // All of low RAM but the page of the kernel: one byte too many.
    const std::vector<std::byte> large(kMemory - 0x101000 + 1);
    const TestFile initrd(large);
    EXPECT_THAT(refusal(kernel.path(), initrd.path()), HasSubstr("does not fit"));
}

TEST(KernelLoader, CmdlineLimit) {
    const TestFile kernel(bytes_of(LeastElf{}));
    auto memory = *GuestMemory::create(kMemory);
    EXPECT_TRUE(load_kernel(*memory, {kernel.path(), "", std::string(2047, 'x'), 0}));
    EXPECT_THAT(refusal(kernel.path(), "", std::string(2048, 'x')), HasSubstr("2047"));
}

TEST(KernelLoader, MemoryMap) {
    using Type = MemoryMapEntry::Type;
    const auto large = *GuestMemory::create(uint64_t{5} << 30);
    EXPECT_EQ(memory_map(*large), (std::vector<MemoryMapEntry>{
                                      {0, 0x9fc00, Type::kRam},
                                      {0x9fc00, 0x60400, Type::kReserved},
                                      {0x100000, (uint64_t{3} << 30) - 0x100000, Type::kRam},
                                      {0xfffbc000, 0x4000, Type::kReserved},
                                      {uint64_t{4} << 30, uint64_t{2} << 30, Type::kRam},
                                  }));
    const auto least = *GuestMemory::create(1 << 20);
    EXPECT_EQ(memory_map(*least).size(), 3U);
}

TEST(KernelLoader, RegistersForPvh) {
    kvm_regs regs{};
    regs.rcx = 5;
    kvm_sregs sregs{};
    sregs.apic_base = 0xfee00900;
    sregs.cr0 = 0x60000010;
    const BootState state{BootState::Protocol::kPvh, 0x100000, 0x7000};
    state.apply(regs, sregs);
    EXPECT_EQ(regs.rip, 0x100000U);
    EXPECT_EQ(regs.rbx, 0x7000U);
    EXPECT_EQ(regs.rcx, 0U);
    EXPECT_EQ(regs.rflags, 2U);
    EXPECT_EQ(sregs.apic_base, 0xfee00900U);
    EXPECT_EQ(sregs.cr0, 0x11U);
    EXPECT_EQ(sregs.efer, 0U);
    EXPECT_EQ(sregs.cs.db, 1);
    EXPECT_EQ(sregs.cs.limit, 0xffffffffU);
}

TEST(KernelLoader, RegistersAndTablesForLinux64) {
    auto memory = *GuestMemory::create(kMemory);
    ASSERT_TRUE(write_linux64_tables(*memory));
    kvm_regs regs{};
    kvm_sregs sregs{};
    const BootState state{BootState::Protocol::kLinux64, 0x1000200, 0x7000};
    state.apply(regs, sregs);
    EXPECT_EQ(regs.rsi, 0x7000U);
    EXPECT_EQ(sregs.efer, 0x500U);
    EXPECT_EQ(sregs.cs.selector, 0x10);
    EXPECT_EQ(sregs.cs.l, 1);
    EXPECT_EQ(sregs.cs.db, 0);
    EXPECT_EQ(sregs.ds.selector, 0x18);
    EXPECT_EQ(memory->read<uint64_t>(sregs.gdt.base + 0x10), 0x00af9b000000ffffU);

    // Walks the tables as a processor does.
    for (const uint64_t address : {uint64_t{0}, uint64_t{0x1000200}, uint64_t{0xffffffff}}) {
        Gpa table = sregs.cr3;
        for (const unsigned shift : {39U, 30U, 21U}) {
            const uint64_t entry = *memory->read<uint64_t>(table + 8 * (address >> shift & 511));
            EXPECT_EQ(entry & 3, 3U);
            table = entry & ~uint64_t{0xfff};
        }
        EXPECT_EQ(table, address & ~uint64_t{0x1fffff}) << address;
    }
}

}  // namespace
}  // namespace ivmm
