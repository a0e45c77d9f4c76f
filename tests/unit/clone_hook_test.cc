#include "vmm/fork/clone_hook.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/support/temp_dir.h"

namespace ivmm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CloneHookTest : public testing::Test {
 protected:
    CloneHook hook(const std::string& script, uint32_t timeout_s = 10) {
        const std::string path = dir_.path() + "/hook";
        std::ofstream(path) << "#!/bin/sh\n" << script;
        ::chmod(path.c_str(), 0700);
        return {path, timeout_s};
    }
    Result<std::vector<MemoryChange>> run(const std::string& script, uint32_t timeout_s = 10) {
        return run_clone_hook(hook(script, timeout_s), clone_);
    }
    std::string written(const char* name) const {
        std::ifstream file(dir_.path() + "/" + name);
        return {std::istreambuf_iterator<char>(file), {}};
    }

    test::TempDir dir_;
    HookedClone clone_{"trap", "web", "198.51.100.7", "/dev/null", {"/a", "", "/c"}};
};

TEST_F(CloneHookTest, IsToldOfTheClone) {
    ::setenv("IVMM_DISK1", "of whoever has started the guest", 1);
    const auto changes = run("env | grep ^IVMM_ | sort >" + dir_.path() + "/env\n");
    ::unsetenv("IVMM_DISK1");
    ASSERT_TRUE(changes) << changes.error().message;
    EXPECT_THAT(*changes, IsEmpty());
    EXPECT_EQ(written("env"),
              "IVMM_ATTACKER=198.51.100.7\nIVMM_CLONE=trap\nIVMM_DISK0=/a\nIVMM_DISK2=/c\n"
              "IVMM_GUEST=web\nIVMM_MEMORY=/dev/null\n");
}

TEST_F(CloneHookTest, SaysWhatIsToBeChangedInMemory) {
    const auto changes = run("echo memory 4096 00ff; echo memory 0 aa\n");
    ASSERT_TRUE(changes) << changes.error().message;
    ASSERT_EQ(changes->size(), 2u);
    EXPECT_EQ((*changes)[0].offset, 4096u);
}

TEST_F(CloneHookTest, HasNoDescriptorsButItsOwn) {
    const UniqueFd ours(::dup(STDERR_FILENO));  // not closed by exec
    // Of the shell and of ls: the folder, and what the shell has its script in.
    const auto changes =
        run("for f in /proc/self/fd/*; do echo $f; done >&2; ls /proc/self/fd | "
            "wc -l >" +
            dir_.path() + "/count\n");
    ASSERT_TRUE(changes) << changes.error().message;
    EXPECT_LE(std::stoi(written("count")), 5);
    const auto more = run("test ! -e /proc/self/fd/" + std::to_string(ours.get()) + " || test " +
                          std::to_string(ours.get()) + " = 10\n");
    EXPECT_TRUE(more) << more.error().message;
}

TEST_F(CloneHookTest, RefusesWhatDoesNotWork) {
    EXPECT_THAT(run("exit 3\n").error().message,
                AllOf(HasSubstr("/hook'"), HasSubstr("exit code 3")));
    EXPECT_THAT(run("kill -9 $$\n").error().message, HasSubstr("signal 9"));
    EXPECT_THAT(run("echo hello\n").error().message, HasSubstr("hello"));
    EXPECT_THAT(run("cat /dev/zero\n").error().message, HasSubstr("prints more than"));
    EXPECT_THAT(run_clone_hook({"/nonexistent", 1}, clone_).error().message,
                HasSubstr("cannot be run"));
    EXPECT_THAT(run_clone_hook({"/", 1}, clone_).error().message, HasSubstr("cannot be run"));
}

TEST_F(CloneHookTest, EndsWithAllThatItHasStarted) {
    const auto ends = [&](const std::string& script) {
        const auto outcome = run(script, 1);
        const pid_t child = std::stoi(written("child"));
        // It is somebody else's to be waited for.
        for (int i = 0; i < 500 && ::kill(child, 0) == 0 &&
                        std::filesystem::exists("/proc/" + std::to_string(child) + "/exe");
             ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        std::error_code error;
        EXPECT_TRUE(std::filesystem::read_symlink("/proc/" + std::to_string(child) + "/exe", error)
                        .empty());
        return outcome;
    };
    const std::string start = "sleep 1000 &\necho $! >" + dir_.path() + "/child\n";
    EXPECT_THAT(ends(start + "wait\n").error().message, HasSubstr("takes too long"));
    // One that is left behind, with the hook's standard output open.
    EXPECT_TRUE(ends(start));
}

}  // namespace
}  // namespace ivmm
