#include "vmm/peer/shared_view.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <vector>

#include "base/unique_fd.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm::peer {
namespace {

/// A path in the options of a mount.
std::string escaped(const std::string& path) {
    std::string text;
    for (const char c : path) {
        if (c == ',' || c == ':' || c == '\\') {
            text += '\\';
        }
        text += c;
    }
    return text;
}

std::string read_all(int pipe) {
    std::string text;
    std::array<char, 1024> buffer{};
    while (true) {
        const ssize_t n = ::read(pipe, buffer.data(), buffer.size());
        if (n > 0) {
            text.append(buffer.data(), static_cast<size_t>(n));
        } else if (n == 0 || errno != EINTR) {
            return text;
        }
    }
}

/// Runs this program with other arguments to its end. Errors: what it has said.
Result<void> run_ivmm(std::vector<std::string> arguments) {
    std::vector<char*> argv;
    argv.reserve(arguments.size() + 1);
    for (auto& argument : arguments) {
        argv.push_back(argument.data());
    }
    argv.push_back(nullptr);
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        return fail_errno("cannot create a pipe");
    }
    const UniqueFd ours(ends[0]);
    UniqueFd theirs(ends[1]);
    posix_spawn_file_actions_t actions{};
    posix_spawnattr_t attributes{};
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
    ::posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDERR_FILENO);
    sigset_t none;
    ::sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    pid_t pid = 0;
    const int code =
        ::posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, argv.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    theirs.reset();
    if (code != 0) {
        errno = code;
        return fail_errno("cannot start ivmm");
    }
    std::string said = read_all(ours.get());
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        said.erase(said.find_last_not_of('\n') + 1);
        return fail("{}", said);
    }
    return {};
}

}  // namespace

Result<std::string> shared_store(const std::string& folder, const std::string& file) {
    if (folder.empty()) {
        return fail(
            "this host keeps no disks: its `ivmm standby --listen` was started without "
            "--disks");
    }
    const std::string stores = folder + "/stores";
    if (::mkdir(stores.c_str(), 0700) != 0 && errno != EEXIST) {
        return fail_errno("cannot create '{}'", stores);
    }
    const std::string branch = std::filesystem::path(file).parent_path().string();
    return fmt::format("{}/{:016x}", stores, XXH3_64bits(branch.data(), branch.size()));
}

Result<int> mount_shared_view(const std::string& branch, const CloneView& view) {
    if (::mkdir(view.mountpoint.c_str(), 0700) != 0 && errno != EEXIST) {
        return fail_errno("cannot create the clone's mount point '{}'", view.mountpoint);
    }
    IVMM_TRY(run_ivmm(
        {"ivmm", "overlay", "mount", "-o",
         fmt::format("lower={},upper={},view={}", escaped(branch), escaped(view.store), view.view),
         view.mountpoint}));
    IVMM_ASSIGN(const auto mount, overlay::find_mount(view.mountpoint));
    return mount.server.status.value("pid", 0);
}

}  // namespace ivmm::peer
