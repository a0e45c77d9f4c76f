#include "vmm/evidence/core_file.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/procfs.h>
#include <sys/user.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/checked.h"
#include "base/unique_fd.h"
#include "memory/guest_memory.h"
#include "vmm/snapshot/file_pages.h"

namespace ivmm::evidence {
namespace {

// The names of notes, padded to four bytes.
constexpr char kCore[8] = "CORE";
constexpr char kVmcoreinfo[12] = "VMCOREINFO";

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

void append_vmcoreinfo(std::vector<std::byte>& out, const std::string& text) {
    append(out, Elf64_Nhdr{sizeof("VMCOREINFO"), static_cast<Elf64_Word>(text.size()), 0});
    append(out, kVmcoreinfo);
    const auto bytes = std::as_bytes(std::span(text));
    out.insert(out.end(), bytes.begin(), bytes.end());
    out.resize(align_up<size_t>(out.size(), 4));
}

/// The text that Linux keeps for crash dumps at the beginning of a page (kernel/crash_core.c).
std::optional<std::string> find_vmcoreinfo(ConstByteSpan page) {
    const std::string_view text(reinterpret_cast<const char*>(page.data()), page.size());
    if (!text.starts_with("OSRELEASE=") || text.find("\nPAGESIZE=") == text.npos) {
        return std::nullopt;
    }
    return std::string(text.substr(0, text.find('\0')));
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

/// Everything before the memory: a page. The notes are behind it.
std::vector<std::byte> head(uint64_t memory_bytes, uint64_t note_bytes) {
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
    Elf64_Phdr program{};
    program.p_type = PT_NOTE;
    program.p_offset = kPageSize + memory_bytes;
    program.p_filesz = note_bytes;
    append(out, program);
    uint64_t offset = kPageSize;
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
    out.resize(kPageSize);
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
        std::optional<std::string> vmcoreinfo;
        const uint64_t pages = memory_bytes / kPageSize;
        std::vector<std::byte> buffer(kPagesAtOnce * kPageSize);
        for (uint64_t page = 0; page < pages; page += kPagesAtOnce) {
            if (!progress(static_cast<double>(page) / static_cast<double>(pages))) {
                return fail("interrupted");
            }
            const uint64_t count = std::min(kPagesAtOnce, pages - page);
            const ByteSpan part = ByteSpan(buffer).first(count * kPageSize);
            IVMM_TRY(read(page, count, part));
            IVMM_TRY(write_data_pages(file.get(), 1 + page, part));
            for (uint64_t i = 0; i < count && !vmcoreinfo; ++i) {
                vmcoreinfo = find_vmcoreinfo(part.subspan(i * kPageSize, kPageSize));
            }
        }
        auto note = notes(vcpus);
        if (vmcoreinfo) {
            append_vmcoreinfo(note, *vmcoreinfo);
        }
        const uint64_t note_bytes = note.size();
        note.resize(align_up<uint64_t>(note_bytes, kPageSize));
        IVMM_TRY(write_pages(file.get(), 1 + pages, note));
        if (::ftruncate(file.get(), static_cast<off_t>(kPageSize + memory_bytes + note_bytes)) !=
            0) {
            return fail_errno("cannot give it its length");
        }
        return write_pages(file.get(), 0, head(memory_bytes, note_bytes));
    }();
    if (!filled) {
        return annotate(std::move(filled).error(), fmt::format("the core file '{}'", path));
    }
    return {};
}

}  // namespace ivmm::evidence
