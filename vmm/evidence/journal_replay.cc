#include "vmm/evidence/journal_replay.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "base/spawn_settings.h"
#include "base/unique_fd.h"

namespace ivmm::evidence {
namespace {

constexpr int kPatienceMs = 60'000;
constexpr int kFixed = 1;         // exit code: errors were corrected
constexpr int kNoFileSystem = 8;  // operational error: the superblock is none

/// Gives the exit code.
Result<int> wait_for(pid_t process) {
    // close-on-exec by itself
    const UniqueFd handle(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
    pollfd ended{handle.get(), POLLIN, 0};
    const bool in_time = handle && ::poll(&ended, 1, kPatienceMs) == 1;
    if (!in_time) {
        ::kill(process, SIGKILL);
    }
    int status = 0;
    while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
    }
    if (!in_time) {
        return fail("e2fsck has taken too long");
    }
    return WIFEXITED(status) ? Result<int>(WEXITSTATUS(status))
                             : fail("e2fsck was ended by signal {}", WTERMSIG(status));
}

}  // namespace

Result<void> replay_journal(const std::string& image) {
    SpawnSettings settings;
    for (const int output : {STDOUT_FILENO, STDERR_FILENO}) {
        ::posix_spawn_file_actions_addopen(&settings.actions, output, "/dev/null", O_WRONLY, 0);
    }
    settings.in_a_session_of_its_own();
    std::array<std::string, 5> words{"e2fsck", "-p", "-E", "journal_only", image};
    std::array<char*, words.size() + 1> argv{};
    for (size_t i = 0; i < words.size(); ++i) {
        argv[i] = words[i].data();
    }
    pid_t process = -1;
    const int error = ::posix_spawnp(&process, "e2fsck", &settings.actions, &settings.attributes,
                                     argv.data(), environ);
    if (error != 0) {
        return fail_as(ErrorKind::kHost, "e2fsck cannot be started: {} (Debian: e2fsprogs)",
                       error_text(error));
    }
    IVMM_ASSIGN(const int code, wait_for(process));
    if (code > kFixed && code != kNoFileSystem) {
        return fail("e2fsck has ended with {}", code);
    }
    return {};
}

}  // namespace ivmm::evidence
