#include "vmm/fork/standby.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "base/spawn_settings.h"

namespace ivmm {
namespace {

constexpr Channel::Milliseconds kBuildPatience = std::chrono::seconds(30);
constexpr Channel::Milliseconds kAnswerPatience = std::chrono::seconds(10);

/// The descriptor at which the process finds its end of the channel.
constexpr int kChannelFd = 3;

Result<pid_t> spawn(const std::string& program, int channel) {
    SpawnSettings settings;
    // A duplicate is not closed by exec, but the original is, so it must not be the same number.
    ::posix_spawn_file_actions_adddup2(&settings.actions, channel, kChannelFd);
    ::posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
    ::posix_spawn_file_actions_adddup2(&settings.actions, STDIN_FILENO, STDOUT_FILENO);
    settings.in_a_session_of_its_own();
    std::string name = "ivmm";
    std::string command = "standby-process";
    std::array<char*, 3> arguments = {name.data(), command.data(), nullptr};
    pid_t pid = 0;
    const int code = ::posix_spawn(&pid, program.c_str(), &settings.actions, &settings.attributes,
                                   arguments.data(), environ);
    if (code != 0) {
        errno = code;
        return fail_errno("cannot start {} for a standby", program);
    }
    return pid;
}

Result<std::vector<uint64_t>> disk_sizes(const GuestConfig& config) {
    std::vector<uint64_t> sizes;
    for (const auto& disk : config.disks) {
        struct stat status {};
        if (::stat(disk.path.c_str(), &status) != 0) {
            return fail_errno("cannot look at disk {}", disk.path);
        }
        sizes.push_back(static_cast<uint64_t>(status.st_size));
    }
    return sizes;
}

}  // namespace

Result<std::unique_ptr<Standby>> Standby::launch(const std::string& program,
                                                 const GuestConfig& config, UniqueFd image) {
    HelloMessage hello;
    hello.config = config;
    IVMM_ASSIGN(hello.disk_sizes, disk_sizes(config));
    return launch(program, hello, std::move(image));
}

Result<std::unique_ptr<Standby>> Standby::launch(const std::string& program,
                                                 const HelloMessage& hello, UniqueFd image) {
    std::array<int, 2> pair{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
        return fail_errno("cannot create a socket pair");
    }
    UniqueFd ours(pair[0]);
    UniqueFd theirs(pair[1]);
    if (theirs.get() == kChannelFd) {
        theirs = UniqueFd(::fcntl(kChannelFd, F_DUPFD_CLOEXEC, kChannelFd + 1));
    }
    IVMM_ASSIGN(const pid_t pid, spawn(program, theirs.get()));
    theirs.reset();
    UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    auto standby = std::unique_ptr<Standby>(
        new Standby(pid, std::move(pidfd), Channel(std::move(ours), "the standby's process")));
    if (!standby->pidfd_) {
        return fail_errno("cannot watch the standby's process");
    }
    IVMM_TRY(standby->channel_.send(hello, {image.get()}));
    return standby;
}

Standby::~Standby() {
    if (!started_) {
        ::kill(pid_, SIGKILL);
        while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
        }
    }
}

Result<void> Standby::wait_ready() {
    IVMM_TRY(channel_.receive<ReadyMessage>(kBuildPatience));
    return {};
}

Result<void> Standby::prepare(const PrepareMessage& order) {
    if (!order.hook.program.empty()) {
        hook_patience_ = std::chrono::seconds(order.hook.timeout_s);
    }
    IVMM_TRY(channel_.send(order));
    IVMM_TRY(channel_.receive<PreparedMessage>(kAnswerPatience));
    return {};
}

Result<RunningMessage> Standby::start(MachineState state, std::vector<std::string> disks) {
    StartMessage message;
    message.state = std::move(state);
    message.disks = std::move(disks);
    IVMM_TRY(channel_.send(message));
    IVMM_ASSIGN(auto running, channel_.receive<RunningMessage>(kAnswerPatience + hook_patience_));
    started_ = true;
    return running;
}

}  // namespace ivmm
