#include "vmm/boot/elf_loader.h"

#include <elf.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/checked.h"
#include "vmm/boot/layout.h"

namespace ivmm {
namespace {

/// Linux has five. The limits keep a hostile file from costing time and memory.
constexpr uint16_t kMaxProgramHeaders = 64;
constexpr uint64_t kMaxNotesSize = 64 << 10;

/// The note's type and its owner's name, with the terminating zero.
constexpr uint32_t kPhys32EntryNote = 18;
constexpr std::array<char, 4> kPhys32EntryOwner = {'X', 'e', 'n', '\0'};

Result<std::vector<Elf64_Phdr>> read_program_headers(const ImageFile& file) {
    IVMM_ASSIGN(const auto header, file.read<Elf64_Ehdr>(0));
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
        header.e_machine != EM_X86_64) {
        return fail_as(ErrorKind::kUsage, "{} is an ELF file for another machine than x86-64",
                       file.name());
    }
    if (header.e_phnum == 0 || header.e_phnum > kMaxProgramHeaders ||
        header.e_phentsize != sizeof(Elf64_Phdr)) {
        return fail_as(ErrorKind::kUsage,
                       "{} is no ELF kernel: it has {} program headers of {} bytes", file.name(),
                       header.e_phnum, header.e_phentsize);
    }
    std::vector<Elf64_Phdr> headers(header.e_phnum);
    IVMM_TRY(file.read(header.e_phoff, std::as_writable_bytes(std::span(headers))));
    return headers;
}

/// The value of the PVH note in a PT_NOTE segment, if it is there.
std::optional<uint64_t> find_pvh_entry(ConstByteSpan notes, uint64_t alignment) {
    while (notes.size() >= sizeof(Elf64_Nhdr)) {
        const auto note = load_at<Elf64_Nhdr>(notes, 0);
        // 64-bit sums of 32-bit numbers: they cannot wrap around.
        const uint64_t name_at = sizeof note;
        const uint64_t value_at = align_up(name_at + note.n_namesz, alignment);
        const uint64_t next = align_up(value_at + note.n_descsz, alignment);
        if (!range_within(value_at, note.n_descsz, notes.size())) {
            return std::nullopt;
        }
        if (note.n_type == kPhys32EntryNote && note.n_namesz == kPhys32EntryOwner.size() &&
            std::memcmp(notes.data() + name_at, kPhys32EntryOwner.data(), note.n_namesz) == 0 &&
            (note.n_descsz == 4 || note.n_descsz == 8)) {
            return load_le(notes.subspan(value_at, note.n_descsz));
        }
        notes = notes.subspan(std::min<uint64_t>(next, notes.size()));
    }
    return std::nullopt;
}

Result<uint64_t> read_pvh_entry(const ImageFile& file, std::span<const Elf64_Phdr> headers) {
    for (const auto& header : headers) {
        if (header.p_type != PT_NOTE) {
            continue;
        }
        if (header.p_filesz > kMaxNotesSize) {
            return fail_as(ErrorKind::kUsage, "{} has {} bytes of ELF notes; at most {} are read",
                           file.name(), header.p_filesz, kMaxNotesSize);
        }
        std::vector<std::byte> notes(header.p_filesz);
        IVMM_TRY(file.read(header.p_offset, notes));
        if (const auto entry = find_pvh_entry(notes, header.p_align == 8 ? 8 : 4)) {
            return *entry;
        }
    }
    return fail_as(ErrorKind::kUsage,
                   "{} is an ELF file without a PVH entry note; a Linux kernel gets one with "
                   "CONFIG_PVH=y",
                   file.name());
}

Result<void> check_segment(const ImageFile& file, const Elf64_Phdr& header,
                           const GuestMemory& memory) {
    if (header.p_filesz > header.p_memsz) {
        return fail_as(ErrorKind::kUsage,
                       "{} has an ELF segment with more bytes in the file than in memory",
                       file.name());
    }
    if (!range_within(header.p_offset, header.p_filesz, file.size())) {
        return fail_as(ErrorKind::kUsage,
                       "{} is truncated: it has {} bytes, a segment of {} starts at {:#x}",
                       file.name(), file.size(), header.p_filesz, header.p_offset);
    }
    if (header.p_paddr < layout::kKernelStart) {
        return fail_as(ErrorKind::kUsage,
                       "{} wants to lie at {:#x}; below 1 MiB is no place for it", file.name(),
                       header.p_paddr);
    }
    const uint64_t ram = memory.regions().front().size;
    if (!range_within(header.p_paddr, header.p_memsz, ram)) {
        return fail_as(
            ErrorKind::kUsage,
            "{} does not fit into the guest's memory: {} bytes at {:#x}, and RAM ends at "
            "{:#x}; give the guest more memory",
            file.name(), header.p_memsz, header.p_paddr, ram);
    }
    return {};
}

}  // namespace

bool is_elf(const ImageFile& file) {
    const auto magic = file.read<std::array<char, SELFMAG>>(0);
    return magic && std::memcmp(magic->data(), ELFMAG, SELFMAG) == 0;
}

Result<LoadedElf> load_elf(const ImageFile& file, GuestMemory& memory) {
    IVMM_ASSIGN(auto headers, read_program_headers(file));
    IVMM_ASSIGN(const uint64_t entry, read_pvh_entry(file, headers));
    std::erase_if(headers, [](const Elf64_Phdr& header) {
        return header.p_type != PT_LOAD || header.p_memsz == 0;
    });

    LoadedElf kernel{entry, 0};
    bool entry_loaded = false;
    for (const auto& header : headers) {
        IVMM_TRY(check_segment(file, header, memory));
        kernel.end = std::max<Gpa>(kernel.end, header.p_paddr + header.p_memsz);
        entry_loaded |= entry >= header.p_paddr && entry - header.p_paddr < header.p_filesz;
    }
    if (!entry_loaded) {
        return fail_as(ErrorKind::kUsage, "{} has its PVH entry point {:#x} outside its segments",
                       file.name(), entry);
    }
    for (const auto& header : headers) {
        IVMM_TRY(file.load(header.p_offset, header.p_filesz, memory, header.p_paddr));
    }
    return kernel;
}

}  // namespace ivmm
