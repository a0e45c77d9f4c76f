#include "vmm/overlay/overlay_process.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <array>
#include <cstdio>
#include <cstring>
#include <functional>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/log.h"
#include "vmm/cli/cli.h"
#include "vmm/cli/signals.h"
#include "vmm/cli/standard_files.h"
#include "vmm/control/control_server.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/overlay/overlay_control.h"

namespace ivmm::overlay {
namespace {

using Options = storage::OverlayServer::Options;
using storage::OverlayServer;

/// Whether to go on, now that the mount is there.
using OnReady = std::function<bool()>;

/// Unmounts what is still mounted. Errors: something could not be made durable.
Result<void> unmount_all(OverlayServer& overlay) {
    Result<void> first;
    for (const auto& mount : overlay.status()) {
        auto outcome = overlay.unmount(mount.view, true);
        if (!outcome && first) {
            first = std::move(outcome);
        }
    }
    return first;
}

/// This process's own name among the servers.
Result<GuestLock> take_name() {
    return RuntimeDir::find_overlay().lock(std::to_string(::getpid()));
}

/// Until the end. The caller has blocked the signals.
Result<void> serve(const Options& options, GuestLock name, const OnReady& on_ready) {
    // Nothing is kept busy by this process, least of all its own mount.
    if (::chdir("/") != 0) {
        return fail_errno("cannot change to the root directory");
    }
    // The modes of new files are those that the users of the mount have asked for.
    ::umask(0);
    IVMM_ASSIGN(auto loop, EventLoop::create());
    // Outlives what follows: who sees its connection end finds all released.
    ControlServer server(*loop);
    std::optional<GuestLock> lock(std::move(name));
    IVMM_ASSIGN(const auto signals, EndSignals::open());
    IVMM_ASSIGN(const auto signal_watch, loop->watch(signals.get(), EPOLLIN, [&](uint32_t) {
        if (EndSignals::take(signals.get())) {
            loop->stop();
        }
    }));

    std::optional<OverlayControl> control;
    IVMM_ASSIGN(auto overlay, OverlayServer::start(options, [&](const std::string& mountpoint) {
                    loop->post([&, mountpoint] { control->mount_has_gone(mountpoint); });
                }));
    IVMM_ASSIGN(auto worker, LoopThread::start("overlay"));
    control.emplace(OverlayControl::Identity{options.store, options.lower}, *overlay, *loop,
                    worker->loop(), server, [&] { loop->stop(); });
    IVMM_ASSIGN(auto listener, lock->listen());
    IVMM_TRY(server.listen(std::move(listener)));
    if (on_ready()) {
        loop->run();
    }

    worker.reset();
    control.reset();
    auto outcome = unmount_all(*overlay);
    overlay.reset();
    lock.reset();
    server.drain();
    return outcome;
}

/// How the starting process learns of its child: a byte with the exit code, 0 when the mount is
/// there, and the text of the error.
bool tell(const UniqueFd& pipe, int code, std::string_view text) {
    const std::string message = static_cast<char>(code) + std::string(text);
    return ::write(pipe.get(), message.data(), message.size()) == std::ssize(message);
}

/// The child: a process of its own from here on.
int be_background(const Options& options, UniqueFd pipe) {
    ::setsid();
    redirect("/dev/null", O_RDWR, {STDIN_FILENO, STDOUT_FILENO});
    const auto refuse = [&](const Error& error) {
        tell(pipe, exit_code(error.kind), error.message);
        return exit_code(error.kind);
    };
    auto name = take_name();
    if (!name) {
        return refuse(name.error());
    }
    redirect(RuntimeDir::find_overlay().log_path(std::to_string(::getpid())),
             O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, {STDERR_FILENO});
    const auto result = serve(options, *std::move(name), [&] {
        const bool told = tell(pipe, 0, {});
        pipe.reset();
        return told;  // otherwise whoever wanted it has gone
    });
    if (result) {
        return 0;
    }
    return pipe ? refuse(result.error()) : cli::report(result.error());
}

std::string read_all(const UniqueFd& pipe) {
    std::string text;
    std::array<char, 4096> buffer{};
    while (true) {
        const ssize_t n = ::read(pipe.get(), buffer.data(), buffer.size());
        if (n > 0) {
            text.append(buffer.data(), static_cast<size_t>(n));
        } else if (n == 0 || errno != EINTR) {
            return text;
        }
    }
}

int wait_until_ready(pid_t process, const UniqueFd& pipe) {
    const std::string told = read_all(pipe);
    if (!told.empty()) {
        const int code = static_cast<unsigned char>(told.front());
        if (code != 0) {
            cli::say(told.substr(1));
        }
        return code;
    }
    int status = 0;
    while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
    }
    static_cast<void>(RuntimeDir::find_overlay().remove_leftovers());
    const std::string how = WIFSIGNALED(status)
                                // NOLINTNEXTLINE(concurrency-mt-unsafe): safe in glibc since 2.32
                                ? fmt::format(": it was killed: {}", ::strsignal(WTERMSIG(status)))
                                : "";
    return cli::report({ErrorKind::kFailed, 0,
                        fmt::format("the overlay server has ended before it served{}", how)});
}

}  // namespace

int serve_in_foreground(const Options& options) {
    const EndSignals signals;
    auto name = take_name();
    if (!name) {
        return cli::report(name.error());
    }
    const auto result = serve(options, *std::move(name), [&] {
        if (options.store.empty()) {
            cli::print("{}: read-only union of {}\n", options.mount.mountpoint,
                       fmt::join(options.lower, ":"));
        } else {
            cli::print("{}: view {} of {}\n", options.mount.mountpoint, options.view,
                       options.store);
        }
        static_cast<void>(std::fflush(stdout));
        return true;
    });
    return result ? 0 : cli::report(result.error());
}

int serve_in_background(const Options& options) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        return cli::report(fail_errno("cannot create a pipe").error);
    }
    UniqueFd ours(ends[0]);
    UniqueFd theirs(ends[1]);
    std::optional<EndSignals> signals(std::in_place);
    static_cast<void>(std::fflush(nullptr));
    const pid_t process = ::fork();
    if (process < 0) {
        return cli::report(fail_errno("cannot start a process").error);
    }
    if (process == 0) {
        ours.reset();
        ::_exit(be_background(options, std::move(theirs)));
    }
    theirs.reset();
    signals.reset();
    return wait_until_ready(process, ours);
}

}  // namespace ivmm::overlay
