// What is found in a memory: programs that were started, and what a crash dump is to know.

#include <elf.h>
#include <gmock/gmock.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>

#include "memory/guest_memory.h"
#include "tests/support/temp_dir.h"
#include "vmm/evidence/core_file.h"
#include "vmm/evidence/exec_stack.h"

namespace ivmm::evidence {
namespace {

using testing::ElementsAre;

using Page = std::vector<std::byte>;

/// A page that ends with these texts, and with what comes above them.
Page page_with(const std::vector<std::string>& texts, size_t top = 8) {
    std::string end;
    for (const auto& text : texts) {
        end += text + '\0';
    }
    end += std::string(top, '\0');
    Page page(kPageSize);
    const size_t length = std::min(end.size(), page.size());
    std::memcpy(page.data() + page.size() - length, end.data() + end.size() - length, length);
    return page;
}

TEST(ExecStack, AProgramOfThisMachine) {
    // NOLINTBEGIN(cppcoreguidelines-pro-type-const-cast): what posix_spawn wants
    std::array<char*, 4> argv{const_cast<char*>("sleeper"), const_cast<char*>("100"), nullptr};
    std::array<char*, 3> environment{const_cast<char*>("SSH_CLIENT=198.51.100.7 4711 22"),
                                     const_cast<char*>("HOME=/root"), nullptr};
    // NOLINTEND(cppcoreguidelines-pro-type-const-cast)
    pid_t pid = -1;
    ASSERT_EQ(::posix_spawn(&pid, "/bin/sleep", nullptr, nullptr, argv.data(), environment.data()),
              0);
    Page page(kPageSize);
    std::ifstream maps(fmt::format("/proc/{}/maps", pid));
    for (std::string line; std::getline(maps, line);) {
        if (line.find("[stack]") != line.npos) {
            const uint64_t end = std::stoull(line.substr(line.find('-') + 1), nullptr, 16);
            std::ifstream memory(fmt::format("/proc/{}/mem", pid), std::ios::binary);
            memory.seekg(static_cast<std::streamoff>(end - kPageSize));
            memory.read(reinterpret_cast<char*>(page.data()), kPageSize);
            EXPECT_TRUE(memory);
        }
    }
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    const auto program = find_started_program(page);
    ASSERT_TRUE(program);
    EXPECT_EQ(program->file, "/bin/sleep");
    EXPECT_THAT(program->arguments, ElementsAre("sleeper", "100"));
    EXPECT_THAT(program->environment, ElementsAre("SSH_CLIENT=198.51.100.7 4711 22", "HOME=/root"));
    EXPECT_FALSE(program->is_cut);
}

TEST(ExecStack, ArgumentsAreToldFromVariables) {
    const auto program = find_started_program(
        page_with({"", "dd", "if=/dev/zero", "bs=1", "HOME=/", "_=/bin/dd", "/bin/dd"}));
    ASSERT_TRUE(program);
    EXPECT_THAT(program->arguments, ElementsAre("dd", "if=/dev/zero", "bs=1"));
    EXPECT_THAT(program->environment, ElementsAre("HOME=/", "_=/bin/dd"));
}

TEST(ExecStack, MoreThanAPage) {
    const auto program = find_started_program(
        page_with({"x", std::string(5000, 'y'), "A=" + std::string(500, 'z'), "./x"}));
    ASSERT_TRUE(program);
    EXPECT_TRUE(program->is_cut);
    EXPECT_EQ(program->file, "./x");
}

TEST(ExecStack, OtherPages) {
    EXPECT_FALSE(find_started_program(Page(kPageSize)));
    EXPECT_FALSE(find_started_program(Page(kPageSize, std::byte{'/'})));
    EXPECT_FALSE(find_started_program(page_with({"sh", "/bin/sh"}, 7)));
    EXPECT_FALSE(find_started_program(page_with({"sh", "bin/sh"})));
    EXPECT_FALSE(find_started_program(page_with({"sh", "/bin/\x01"})));
    EXPECT_FALSE(find_started_program(page_with({"", "HOME=/", "/bin/sh"})));
    EXPECT_FALSE(find_started_program({}));
}

TEST(CoreFile, HasWhatLinuxKeepsForCrashDumps) {
    const test::TempDir dir;
    const std::string path = dir.path() + "/core";
    constexpr uint64_t kBytes = 64 * kPageSize;
    const std::string info = "OSRELEASE=6.1.0\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffff\n";
    const auto read = [&](uint64_t first, uint64_t /*count*/, ByteSpan out) -> Result<void> {
        std::fill(out.begin(), out.end(), std::byte{});
        if (first <= 7 && 7 < first + out.size() / kPageSize) {
            std::memcpy(out.data() + (7 - first) * kPageSize, info.data(), info.size());
        }
        return {};
    };
    ASSERT_TRUE(
        write_core(path, kBytes, std::vector<VcpuState>(2), read, [](double) { return true; }));
    std::ifstream file(path, std::ios::binary);
    const std::string core((std::istreambuf_iterator<char>(file)), {});
    Elf64_Ehdr header{};
    std::memcpy(&header, core.data(), sizeof(header));
    ASSERT_EQ(header.e_phnum, 2);
    Elf64_Phdr notes{};
    std::memcpy(&notes, core.data() + header.e_phoff, sizeof(notes));
    ASSERT_EQ(notes.p_type, uint32_t{PT_NOTE});
    ASSERT_EQ(notes.p_offset + notes.p_filesz, core.size());
    const std::string_view note = std::string_view(core).substr(notes.p_offset);
    const size_t found = note.find("VMCOREINFO");
    ASSERT_NE(found, note.npos);
    EXPECT_EQ(note.substr(found + 12, info.size()), info);
    Elf64_Phdr load{};
    std::memcpy(&load, core.data() + header.e_phoff + sizeof(notes), sizeof(load));
    EXPECT_EQ(core.substr(load.p_offset + 7 * kPageSize, info.size()), info);
}

}  // namespace
}  // namespace ivmm::evidence
