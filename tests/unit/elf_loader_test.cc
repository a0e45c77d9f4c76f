#include "vmm/boot/elf_loader.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <functional>

namespace ivmm {
namespace {

constexpr uint64_t kMemory = uint64_t{4} << 20;
constexpr Gpa kTextAt = 0x100000;
constexpr Gpa kDataAt = 0x180000;

/// The bytes of an ELF kernel with a note, a text and a data segment; a test changes what it
/// wants to see refused.
struct TestElf {
    Elf64_Ehdr header{};
    Elf64_Phdr note{};
    Elf64_Phdr text{};
    Elf64_Phdr data{};
    struct {
        Elf64_Nhdr other{4, 5, 1};
        char other_name[4] = {'G', 'N', 'U', '\0'};
        char other_value[8] = "abcd";
        Elf64_Nhdr note{4, 4, 18};
        char name[4] = {'X', 'e', 'n', '\0'};
        uint32_t entry = kTextAt + 0x10;
    } notes;
    std::array<uint8_t, 64> code{};
    std::array<uint8_t, 64> values{};

    TestElf() {
        std::memcpy(header.e_ident, ELFMAG, SELFMAG);
        header.e_ident[EI_CLASS] = ELFCLASS64;
        header.e_ident[EI_DATA] = ELFDATA2LSB;
        header.e_machine = EM_X86_64;
        header.e_phoff = offsetof(TestElf, note);
        header.e_phnum = 3;
        header.e_phentsize = sizeof(Elf64_Phdr);
        note.p_type = PT_NOTE;
        note.p_offset = offsetof(TestElf, notes);
        note.p_filesz = sizeof notes;
        text.p_type = PT_LOAD;
        text.p_offset = offsetof(TestElf, code);
        text.p_paddr = kTextAt;
        text.p_filesz = text.p_memsz = sizeof code;
        data.p_type = PT_LOAD;
        data.p_offset = offsetof(TestElf, values);
        data.p_paddr = kDataAt;
        data.p_filesz = sizeof values;
        data.p_memsz = 0x1000;
        code.fill(0xc0);
        values.fill(0xda);
    }
};

class ElfLoader : public testing::Test {
 protected:
    Result<LoadedElf> load(ConstByteSpan bytes) {
        fd_.reset(::memfd_create("elf", MFD_CLOEXEC));
        EXPECT_EQ(::write(fd_.get(), bytes.data(), bytes.size()),
                  static_cast<ssize_t>(bytes.size()));
        auto file = ImageFile::open("kernel", "/proc/self/fd/" + std::to_string(fd_.get()));
        if (!file) {
            return Unexpected{file.error()};
        }
        return load_elf(*file, *memory_);
    }
    /// The message with which an ELF that was changed is refused.
    std::string refusal(const std::function<void(TestElf&)>& change) {
        TestElf elf;
        change(elf);
        const auto result = load(bytes_of(elf));
        EXPECT_FALSE(result);
        EXPECT_EQ(memory_->read<uint8_t>(kTextAt), 0);  // refused before anything is written
        return result ? "" : result.error().message;
    }

    UniqueFd fd_;
    std::unique_ptr<GuestMemory> memory_ = *GuestMemory::create(kMemory);
};

TEST_F(ElfLoader, LoadsSegments) {
    const TestElf elf;
    const auto kernel = load(bytes_of(elf));
    ASSERT_TRUE(kernel) << kernel.error().message;
    EXPECT_EQ(kernel->entry, kTextAt + 0x10);
    EXPECT_EQ(kernel->end, kDataAt + 0x1000);
    EXPECT_EQ(memory_->read<decltype(elf.code)>(kTextAt), elf.code);
    EXPECT_EQ(memory_->read<decltype(elf.values)>(kDataAt), elf.values);
    EXPECT_EQ(memory_->read<uint8_t>(kDataAt + 64), 0);

    PageSet dirty(memory_->vmm_dirty().pages());
    memory_->vmm_dirty().collect(dirty);
    EXPECT_EQ(dirty.words()[kTextAt / kPageSize / 64], uint64_t{1} << (kTextAt / kPageSize % 64));
}

TEST_F(ElfLoader, EightByteEntry) {
    TestElf elf;
    elf.notes.other.n_descsz = 4;  // four bytes less, which the longer value fills
    struct {
        Elf64_Nhdr note{4, 8, 18};
        char name[4] = {'X', 'e', 'n', '\0'};
        uint64_t entry = kTextAt;
    } longer;
    static_assert(sizeof longer == 24);
    std::memcpy(reinterpret_cast<std::byte*>(&elf.notes) + 20, &longer, sizeof longer);
    const auto kernel = load(bytes_of(elf));
    ASSERT_TRUE(kernel) << kernel.error().message;
    EXPECT_EQ(kernel->entry, kTextAt);
}

TEST_F(ElfLoader, RefusesOtherMachines) {
    const auto kOther = testing::HasSubstr("another machine");
    EXPECT_THAT(refusal([](TestElf& e) { e.header.e_machine = EM_AARCH64; }), kOther);
    EXPECT_THAT(refusal([](TestElf& e) { e.header.e_ident[EI_CLASS] = ELFCLASS32; }), kOther);
    EXPECT_THAT(refusal([](TestElf& e) { e.header.e_ident[EI_DATA] = ELFDATA2MSB; }), kOther);
}

TEST_F(ElfLoader, RefusesWhatIsNoKernel) {
    EXPECT_THAT(refusal([](TestElf& e) { e.note.p_type = PT_NULL; }),
                testing::HasSubstr("CONFIG_PVH"));
    EXPECT_THAT(refusal([](TestElf& e) { e.notes.note.n_type = 1; }),
                testing::HasSubstr("CONFIG_PVH"));
    EXPECT_THAT(refusal([](TestElf& e) { e.notes.name[0] = 'x'; }),
                testing::HasSubstr("CONFIG_PVH"));
    EXPECT_THAT(refusal([](TestElf& e) { e.header.e_phnum = 0; }),
                testing::HasSubstr("program headers"));
    EXPECT_THAT(refusal([](TestElf& e) { e.header.e_phnum = 0xffff; }),
                testing::HasSubstr("program headers"));
}

TEST_F(ElfLoader, RefusesTruncatedFiles) {
    const auto kTruncated = testing::HasSubstr("truncated");
    const TestElf elf;
    for (const size_t size : {size_t{40}, sizeof(Elf64_Ehdr) + 10, offsetof(TestElf, notes) + 4,
                              offsetof(TestElf, code) + 1, offsetof(TestElf, values) + 63}) {
        const auto result = load(bytes_of(elf).first(size));
        ASSERT_FALSE(result);
        EXPECT_THAT(result.error().message, kTruncated);
        EXPECT_EQ(result.error().kind, ErrorKind::kUsage);
    }
    EXPECT_THAT(refusal([](TestElf& e) { e.header.e_phoff = ~uint64_t{0}; }), kTruncated);
    EXPECT_THAT(refusal([](TestElf& e) { e.data.p_offset = ~uint64_t{0}; }), kTruncated);
    EXPECT_THAT(refusal([](TestElf& e) { e.note.p_offset = ~uint64_t{0} - 2; }), kTruncated);
}

TEST_F(ElfLoader, RefusesHostileNotes) {
    EXPECT_FALSE(refusal([](TestElf& e) { e.note.p_filesz = ~uint64_t{0}; }).empty());
    EXPECT_FALSE(refusal([](TestElf& e) { e.notes.other.n_namesz = ~uint32_t{0}; }).empty());
    EXPECT_FALSE(refusal([](TestElf& e) { e.notes.other.n_descsz = ~uint32_t{0}; }).empty());
    EXPECT_FALSE(refusal([](TestElf& e) { e.notes.note.n_descsz = 0; }).empty());
    EXPECT_FALSE(refusal([](TestElf& e) { e.note.p_filesz = 13; }).empty());
}

TEST_F(ElfLoader, RefusesSegmentsOutsideMemory) {
    const auto kTooLarge = testing::HasSubstr("more memory");
    EXPECT_THAT(refusal([](TestElf& e) { e.data.p_memsz = kMemory; }), kTooLarge);
    EXPECT_THAT(refusal([](TestElf& e) { e.data.p_memsz = ~uint64_t{0}; }), kTooLarge);
    EXPECT_THAT(refusal([](TestElf& e) { e.data.p_paddr = ~uint64_t{0} - 1; }), kTooLarge);
    EXPECT_THAT(refusal([](TestElf& e) { e.data.p_paddr = 0x7000; }),
                testing::HasSubstr("below 1 MiB"));
    EXPECT_THAT(refusal([](TestElf& e) { e.data.p_memsz = 1; }),
                testing::HasSubstr("more bytes in the file"));
}

TEST_F(ElfLoader, RefusesEntryOutsideSegments) {
    EXPECT_THAT(refusal([](TestElf& e) { e.notes.entry = kDataAt + 0x800; }),
                testing::HasSubstr("entry point"));
    EXPECT_THAT(refusal([](TestElf& e) { e.notes.entry = 0; }), testing::HasSubstr("entry point"));
}

}  // namespace
}  // namespace ivmm
