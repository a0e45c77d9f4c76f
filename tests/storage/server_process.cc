#include "tests/storage/server_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <future>
#include <memory>
#include <string_view>

#include "storage/fuse/server.h"

namespace ivmm::test {
namespace {

using storage::OverlayServer;

constexpr std::string_view kServe = "--serve";
constexpr size_t kMessageSize = 16384;
constexpr unsigned kLifetimeSeconds = 240;  // CTest's limit is 300

std::string join(const std::vector<std::string>& words) {
    std::string text;
    for (const auto& word : words) {
        text += word + '\n';
    }
    return text;
}

std::vector<std::string> split(std::string_view text) {
    std::vector<std::string> words;
    while (!text.empty()) {
        const size_t end = text.find('\n');
        words.emplace_back(text.substr(0, end));
        text.remove_prefix(std::min(end, text.size() - 1) + 1);
    }
    return words;
}

/// The next message, or nothing when the other side has gone.
std::string receive(int socket) {
    std::string message(kMessageSize, '\0');
    ssize_t size = -1;
    do {
        size = ::recv(socket, message.data(), message.size(), 0);
    } while (size < 0 && errno == EINTR);
    message.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
    return message;
}

/// Of the last flatten.
std::future<Result<storage::FlattenReport>> flattened;

Result<std::string> execute(OverlayServer& server, const std::vector<std::string>& command) {
    const std::string& verb = command.at(0);
    const std::string& view = command.at(1);
    if (verb == "mount") {
        IVMM_TRY(server.mount(view, {.mountpoint = command.at(2)}));
    } else if (verb == "unmount") {
        IVMM_TRY(server.unmount(view, false));
    } else if (verb == "remove") {
        IVMM_TRY(server.remove_view(view));
    } else if (verb == "fork") {
        std::vector<storage::ForkTarget> targets;
        for (size_t i = 2; i + 1 < command.size(); i += 2) {
            targets.push_back({command[i], std::nullopt});
            if (!command[i + 1].empty()) {
                targets.back().mount = storage::MountOptions{.mountpoint = command[i + 1]};
            }
        }
        IVMM_ASSIGN(const storage::ForkReport report, server.fork(view, targets));
        return fmt::format("{}", report.pause_us);
    } else if (verb == "flatten") {
        std::promise<Result<storage::FlattenReport>> outcome;
        flattened = outcome.get_future();
        server.flatten(view, [outcome = std::make_shared<decltype(outcome)>(std::move(outcome))](
                                 Result<storage::FlattenReport> report) {
            outcome->set_value(std::move(report));
        });
    } else if (verb == "flattened") {
        IVMM_ASSIGN(const storage::FlattenReport report, flattened.get());
        size_t layers = 0;
        for (const auto& run : report.merged) {
            layers += run.size();
        }
        return fmt::format("{}", layers);
    } else if (verb == "top" || verb == "error") {
        for (const auto& mount : server.status()) {
            if (mount.view == view) {
                return verb == "top" ? fmt::format("{}", mount.top_layer) : mount.error;
            }
        }
        return fail("{} is not mounted", view);
    }
    return std::string();
}

/// The server process: obeys until its parent says "stop" or has gone.
[[noreturn]] void serve(int socket, const std::vector<std::string>& arguments) {
    // A test that hangs in a request of ours cannot even be killed: so we end before its limit.
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody sets it
    if (std::getenv("IVMM_OPERATIONS") == nullptr && std::getenv("IVMM_CRASHES") == nullptr) {
        ::alarm(kLifetimeSeconds);
    }
    OverlayServer::Options options;
    options.store = arguments.at(0);
    options.view = arguments.at(1);
    options.mount.mountpoint = arguments.at(2);
    options.lower.assign(arguments.begin() + 3, arguments.end());
    auto server = OverlayServer::start(options, [](const std::string&) {});
    std::string reply = server ? "ok\n" : "error\n" + server.error().message;
    while (::send(socket, reply.data(), reply.size(), MSG_NOSIGNAL) > 0 && server) {
        const std::string message = receive(socket);
        if (message.empty()) {
            ::_exit(2);  // the test has died: its mounts go with it
        }
        if (message == "stop\n") {
            server->reset();
            std::exit(0);  // NOLINT(concurrency-mt-unsafe): with the sanitizers' last checks
        }
        const auto outcome = execute(**server, split(message));
        reply = outcome ? "ok\n" + *outcome : "error\n" + outcome.error().message;
    }
    ::_exit(2);
}

}  // namespace

void serve_if_asked(int argc, char** argv) {
    if (argc > 2 && argv[1] == kServe) {
        serve(std::atoi(argv[2]),  // NOLINT(cert-err34-c): we have written it
              {argv + 3, argv + argc});
    }
}

Result<ServerProcess> ServerProcess::start(const Options& options) {
    std::array<int, 2> sockets{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
        return fail_errno("socketpair");
    }
    ServerProcess process;
    process.control_.reset(sockets[0]);
    const UniqueFd theirs(sockets[1]);
    constexpr int kFd = 3;
    std::vector<std::string> words{"/proc/self/exe", std::string(kServe), fmt::format("{}", kFd),
                                   options.store,    options.view,        options.mountpoint};
    words.insert(words.end(), options.lower.begin(), options.lower.end());
    std::vector<char*> arguments;
    for (auto& word : words) {
        arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    // dup2 onto itself would leave it closed on exec.
    const UniqueFd high(::fcntl(theirs.get(), F_DUPFD_CLOEXEC, kFd + 1));
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, high.get(), kFd);
    const int spawned =
        ::posix_spawn(&process.pid_, arguments[0], &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (spawned != 0) {
        process.pid_ = -1;
        errno = spawned;
        return fail_errno("cannot start the server process");
    }
    process.mountpoints_.push_back(options.mountpoint);
    IVMM_TRY(process.ask({}));
    return process;
}

ServerProcess::ServerProcess(ServerProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      control_(std::move(other.control_)),
      mountpoints_(std::move(other.mountpoints_)) {}

ServerProcess& ServerProcess::operator=(ServerProcess&& other) noexcept {
    std::swap(pid_, other.pid_);
    std::swap(control_, other.control_);
    std::swap(mountpoints_, other.mountpoints_);
    return *this;
}

ServerProcess::~ServerProcess() {
    kill();
    clean_up();
}

Result<std::string> ServerProcess::ask(const std::vector<std::string>& command) {
    const std::string text = join(command);
    if (!text.empty() && ::send(control_.get(), text.data(), text.size(), MSG_NOSIGNAL) < 0) {
        return fail_errno("the server process has gone");
    }
    const std::string reply = receive(control_.get());
    if (reply.starts_with("ok\n")) {
        return reply.substr(3);
    }
    return fail("{}: {}", command.empty() ? "start" : command[0],
                reply.empty() ? "the server process has died" : reply.substr(6));
}

Result<void> ServerProcess::mount(const NewView& view) {
    IVMM_TRY(ask({"mount", view.name, view.mountpoint}));
    mountpoints_.push_back(view.mountpoint);
    return {};
}

Result<void> ServerProcess::unmount(const std::string& view) {
    IVMM_TRY(ask({"unmount", view}));
    return {};
}

Result<double> ServerProcess::fork(const std::string& view, const std::vector<NewView>& targets) {
    std::vector<std::string> command{"fork", view};
    for (const auto& target : targets) {
        command.push_back(target.name);
        command.push_back(target.mountpoint);
        mountpoints_.push_back(target.mountpoint);
    }
    IVMM_ASSIGN(const std::string pause, ask(command));
    return std::strtod(pause.c_str(), nullptr);
}

Result<void> ServerProcess::remove_view(const std::string& view) {
    IVMM_TRY(ask({"remove", view}));
    return {};
}

Result<void> ServerProcess::flatten(const std::string& view) {
    IVMM_TRY(ask({"flatten", view}));
    return {};
}

Result<uint32_t> ServerProcess::flattened() {
    IVMM_ASSIGN(const std::string text, ask({"flattened", ""}));
    uint32_t layers = 0;
    std::from_chars(text.data(), text.data() + text.size(), layers);
    return layers;
}

Result<uint32_t> ServerProcess::top_layer(const std::string& view) {
    IVMM_ASSIGN(const std::string text, ask({"top", view}));
    uint32_t number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    return number;
}

Result<std::string> ServerProcess::durability_error(const std::string& view) {
    return ask({"error", view});
}

Result<void> ServerProcess::stop() {
    if (::send(control_.get(), "stop\n", 5, MSG_NOSIGNAL) < 0) {
        return fail_errno("the server process has gone");
    }
    int status = 0;
    if (::waitpid(std::exchange(pid_, -1), &status, 0) < 0 || status != 0) {
        return fail("the server process ended with wait status {:#x}", status);
    }
    mountpoints_.clear();
    return {};
}

void ServerProcess::kill() const {
    if (pid_ > 0) {
        ::kill(pid_, SIGKILL);
    }
}

void ServerProcess::clean_up() {
    if (pid_ > 0) {
        ::waitpid(std::exchange(pid_, -1), nullptr, 0);
    }
    for (const auto& mountpoint : mountpoints_) {
        ::umount2(mountpoint.c_str(), MNT_DETACH);  // most are unmounted already
    }
    mountpoints_.clear();
    control_.reset();
}

}  // namespace ivmm::test
