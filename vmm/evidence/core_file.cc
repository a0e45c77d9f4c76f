#include "vmm/evidence/core_file.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/procfs.h>
#include <sys/user.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/unique_fd.h"
#include "memory/guest_memory.h"
#include "vmm/snapshot/file_pages.h"

namespace ivmm::evidence {
namespace {

constexpr char kCore[8] = "CORE";  // a note's name, padded to four bytes

template <class T>
void append(std::vector<std::byte>& out, const T& value) {
    const auto bytes = bytes_of(value);
    out.insert(out.end(), bytes.begin(), bytes.end());
}

user_regs_struct registers(const VcpuState& vcpu) {
    user_regs_struct regs{};
    const auto& from = vcpu.regs;
    regs.r15 = from.r15;
    regs.r14 = from.r14;
    regs.r13 = from.r13;
    regs.r12 = from.r12;
    regs.rbp = from.rbp;
    regs.rbx = from.rbx;
    regs.r11 = from.r11;
    regs.r10 = from.r10;
    regs.r9 = from.r9;
    regs.r8 = from.r8;
    regs.rax = from.rax;
    regs.rcx = from.rcx;
    regs.rdx = from.rdx;
    regs.rsi = from.rsi;
    regs.rdi = from.rdi;
    regs.orig_rax = UINT64_MAX;
    regs.rip = from.rip;
    regs.cs = vcpu.sregs.cs.selector;
    regs.eflags = from.rflags;
    regs.rsp = from.rsp;
    regs.ss = vcpu.sregs.ss.selector;
    regs.fs_base = vcpu.sregs.fs.base;
    regs.gs_base = vcpu.sregs.gs.base;
    regs.ds = vcpu.sregs.ds.selector;
    regs.es = vcpu.sregs.es.selector;
    regs.fs = vcpu.sregs.fs.selector;
    regs.gs = vcpu.sregs.gs.selector;
    return regs;
}

std::vector<std::byte> notes(const std::vector<VcpuState>& vcpus) {
    std::vector<std::byte> out;
    for (size_t i = 0; i < vcpus.size(); ++i) {
        elf_prstatus status{};
        status.pr_pid = static_cast<pid_t>(i + 1);
        const auto regs = registers(vcpus[i]);
        static_assert(sizeof(regs) == sizeof(status.pr_reg));
        std::memcpy(&status.pr_reg, &regs, sizeof(regs));
        append(out, Elf64_Nhdr{sizeof("CORE"), sizeof(status), NT_PRSTATUS});
        append(out, kCore);
        append(out, status);
        static_assert(sizeof(status) % 4 == 0);
    }
    return out;
}

struct Piece {
    Gpa start;
    uint64_t bytes;
};

std::vector<Piece> pieces(uint64_t memory_bytes) {
    std::vector<Piece> all{{0, std::min<uint64_t>(memory_bytes, kLowRamEnd)}};
    if (memory_bytes > kLowRamEnd) {
        all.push_back({kHighRamStart, memory_bytes - kLowRamEnd});
    }
    return all;
}

/// Everything before the memory, whole pages.
std::vector<std::byte> head(uint64_t memory_bytes, const std::vector<std::byte>& note) {
    const auto loads = pieces(memory_bytes);
    Elf64_Ehdr header{};
    std::memcpy(&header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_CORE;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_phoff = sizeof(Elf64_Ehdr);
    header.e_ehsize = sizeof(Elf64_Ehdr);
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = static_cast<Elf64_Half>(1 + loads.size());
    std::vector<std::byte> out;
    append(out, header);
    const uint64_t note_offset = sizeof(Elf64_Ehdr) + header.e_phnum * sizeof(Elf64_Phdr);
    const uint64_t memory_offset = align_up<uint64_t>(note_offset + note.size(), kPageSize);
    Elf64_Phdr program{};
    program.p_type = PT_NOTE;
    program.p_offset = note_offset;
    program.p_filesz = note.size();
    append(out, program);
    uint64_t offset = memory_offset;
    for (const auto& piece : loads) {
        program = {};
        program.p_type = PT_LOAD;
        program.p_flags = PF_R | PF_W | PF_X;
        program.p_offset = offset;
        program.p_vaddr = piece.start;
        program.p_paddr = piece.start;
        program.p_filesz = piece.bytes;
        program.p_memsz = piece.bytes;
        program.p_align = kPageSize;
        append(out, program);
        offset += piece.bytes;
    }
    out.insert(out.end(), note.begin(), note.end());
    out.resize(memory_offset);
    return out;
}

/// All that are not pages of zeroes, from page `first` of the file on.
Result<void> write_data_pages(int file, uint64_t first, ConstByteSpan pages) {
    for (size_t begin = 0; begin < pages.size();) {
        size_t end = begin;
        while (end < pages.size() && !is_zero_page(pages.subspan(end, kPageSize))) {
            end += kPageSize;
        }
        IVMM_TRY(write_pages(file, first + begin / kPageSize, pages.subspan(begin, end - begin)));
        begin = std::max(end, begin + kPageSize);
    }
    return {};
}

}  // namespace

Result<void> write_core(const std::string& path, uint64_t memory_bytes,
                        const std::vector<VcpuState>& vcpus, const ReadPages& read,
                        const std::function<bool(double)>& progress) {
    const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file) {
        return fail_errno("cannot create '{}'", path);
    }
    auto filled = [&]() -> Result<void> {
        const auto begin = head(memory_bytes, notes(vcpus));
        IVMM_TRY(write_pages(file.get(), 0, begin));
        const uint64_t first = begin.size() / kPageSize;
        const uint64_t pages = memory_bytes / kPageSize;
        std::vector<std::byte> buffer(kPagesAtOnce * kPageSize);
        for (uint64_t page = 0; page < pages; page += kPagesAtOnce) {
            if (!progress(static_cast<double>(page) / static_cast<double>(pages))) {
                return fail("interrupted");
            }
            const uint64_t count = std::min(kPagesAtOnce, pages - page);
            const ByteSpan part = ByteSpan(buffer).first(count * kPageSize);
            IVMM_TRY(read(page, count, part));
            IVMM_TRY(write_data_pages(file.get(), first + page, part));
        }
        if (::ftruncate(file.get(), static_cast<off_t>(begin.size() + memory_bytes)) != 0) {
            return fail_errno("cannot give it its length");
        }
        return {};
    }();
    if (!filled) {
        return annotate(std::move(filled).error(), fmt::format("the core file '{}'", path));
    }
    return {};
}

}  // namespace ivmm::evidence
