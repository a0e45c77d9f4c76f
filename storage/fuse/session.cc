#include "storage/fuse/session.h"

#include <poll.h>
#include <pthread.h>
#include <sys/mount.h>

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
    self->thread_ = std::thread([session, threads = options.threads, on_end = std::move(on_end)] {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
        ::pthread_setname_np(::pthread_self(), "fuse");
        fuse_loop_config* const config = fuse_loop_cfg_create();
        fuse_loop_cfg_set_max_threads(config, threads);
        fuse_loop_cfg_set_idle_threads(config, threads);
        fuse_loop_cfg_set_clone_fd(config, 0);
        fuse_session_loop_mt(session, config);
        fuse_loop_cfg_destroy(config);
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
    thread_.join();
    fuse_session_unmount(session_);  // what the library knows of the mount
    fuse_session_destroy(session_);
}

bool FuseSession::connected() const {
    pollfd state{fuse_session_fd(session_), 0, 0};
    return ::poll(&state, 1, 0) == 0 || (state.revents & POLLERR) == 0;
}

}  // namespace ivmm::storage
