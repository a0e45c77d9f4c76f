#include "storage/fuse/session.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mount.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>

#include "storage/fuse/operations.h"

namespace ivmm::storage {
namespace {

/// A value of a mount option: commas and backslashes are special there.
std::string escaped(const std::string& value) {
    std::string result;
    for (const char c : value) {
        if (c == ',' || c == '\\') {
            result += '\\';
        }
        result += c;
    }
    return result;
}

/// Wakes the library's loop; its handler does nothing.
int wake_signal() {
    static const int number = [] {
        struct sigaction action {};
        action.sa_handler = [](int) {};
        ::sigaction(SIGRTMIN, &action, nullptr);
        return SIGRTMIN;
    }();
    return number;
}

/// Closes a device whose connection somebody still has, which ends it. What takes its place looks
/// to the library like a device that was unmounted; else it would try that again, and complain.
void cut_off(int device) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) == 0) {
        ::close(ends[0]);
        ::dup2(ends[1], device);
        ::close(ends[1]);
    }
}

/// For the kernel to end a connection that was unmounted.
constexpr std::chrono::milliseconds kGrace{500};
constexpr std::chrono::milliseconds kBetweenWakes{10};

}  // namespace

FuseSession::FuseSession(fuse_session* session, std::string mountpoint)
    : session_(session), mountpoint_(std::move(mountpoint)) {}

Result<std::unique_ptr<FuseSession>> FuseSession::start(View& view, const std::string& source,
                                                        const MountOptions& options,
                                                        std::function<void()> on_end) {
    const std::string mount_options =
        fmt::format("allow_other,default_permissions,dev,suid,subtype=ivmm,fsname={}{}",
                    escaped(source), options.read_only ? ",ro" : "");
    fuse_args args = FUSE_ARGS_INIT(0, nullptr);
    const bool made = fuse_opt_add_arg(&args, "ivmm") == 0 && fuse_opt_add_arg(&args, "-o") == 0 &&
                      fuse_opt_add_arg(&args, mount_options.c_str()) == 0;
    fuse_session* const session =
        made ? fuse_session_new(&args, &fuse_operations(), sizeof(fuse_lowlevel_ops), &view)
             : nullptr;
    fuse_opt_free_args(&args);
    if (session == nullptr) {
        return fail("cannot make a FUSE session for {}", options.mountpoint);
    }
    if (fuse_session_mount(session, options.mountpoint.c_str()) != 0) {
        fuse_session_destroy(session);
        return fail_as(ErrorKind::kHost,
                       "cannot mount on {}: needs /dev/fuse and the right to mount (root)",
                       options.mountpoint);
    }
    std::unique_ptr<FuseSession> self(new FuseSession(session, options.mountpoint));
    std::promise<void> ended;
    self->ended_ = ended.get_future();
    self->thread_ = std::thread([session, threads = options.threads, on_end = std::move(on_end),
                                 ended = std::move(ended)]() mutable {
        sigset_t most;
        ::sigfillset(&most);
        ::sigdelset(&most, wake_signal());
        ::pthread_sigmask(SIG_SETMASK, &most, nullptr);
        ::pthread_setname_np(::pthread_self(), "fuse");
        fuse_loop_config* const config = fuse_loop_cfg_create();
        fuse_loop_cfg_set_max_threads(config, threads);
        fuse_loop_cfg_set_idle_threads(config, threads);
        fuse_loop_cfg_set_clone_fd(config, 0);
        fuse_session_loop_mt(session, config);
        fuse_loop_cfg_destroy(config);
        ended.set_value();
        on_end();
    });
    return self;
}

Result<void> FuseSession::unmount() {
    if (!unmounted_ && connected() && ::umount2(mountpoint_.c_str(), 0) != 0) {
        if (errno == EBUSY) {
            return fail("{} is in use", mountpoint_);
        }
        return fail_errno("cannot unmount {}", mountpoint_);
    }
    unmounted_ = true;
    return {};
}

FuseSession::~FuseSession() {
    if (!unmounted_ && connected() && ::umount2(mountpoint_.c_str(), 0) != 0) {
        // Busy: the connection is aborted, so that nobody waits for an answer that never comes.
        ::umount2(mountpoint_.c_str(), MNT_FORCE);
        ::umount2(mountpoint_.c_str(), MNT_DETACH);
    }
    fuse_session_exit(session_);
    // A process with mounts of its own may have it yet, and will be cut off.
    for (auto patience = kGrace; ended_.wait_for(patience) != std::future_status::ready;
         patience = kBetweenWakes) {
        ::pthread_kill(thread_.native_handle(), wake_signal());
    }
    thread_.join();
    if (connected()) {
        cut_off(fuse_session_fd(session_));
    }
    fuse_session_unmount(session_);  // what the library knows of the mount
    fuse_session_destroy(session_);
}

bool FuseSession::connected() const {
    pollfd state{fuse_session_fd(session_), 0, 0};
    return ::poll(&state, 1, 0) == 0 || (state.revents & POLLERR) == 0;
}

}  // namespace ivmm::storage
