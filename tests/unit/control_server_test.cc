#include "vmm/control/control_server.h"

#include <gmock/gmock.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <thread>

#include "tests/support/fake_machine.h"
#include "tests/support/temp_dir.h"
#include "vmm/control/base64.h"
#include "vmm/control/control_client.h"
#include "vmm/control/guest_control.h"
#include "vmm/control/runtime_dir.h"

namespace ivmm {
namespace {

using rpc::Json;
using ::testing::HasSubstr;

/// The control side of a guest process, on a thread of its own.
class ControlServerTest : public testing::Test {
 protected:
    ControlServerTest() {
        ::setenv("XDG_RUNTIME_DIR", dir_.path().c_str(), 1);
        lock_.emplace(*RuntimeDir::find().lock("g"));
        EXPECT_TRUE(server_->listen(*lock_->listen()));
        watch_ = *loop_->watch(hub_->ready_fd(), EPOLLIN, [this](uint32_t) {
            hub_->acknowledge();
            server_->pump_sources();
        });
        EXPECT_TRUE(machine_.start([this](const Ending& ending) {
            loop_->post([this, ending] { control_->announce_end(ending); });
        }));
        thread_ = std::jthread([this] { loop_->run(); });
    }
    ~ControlServerTest() override {
        loop_->stop();
        thread_.join();
    }
    ControlClient client() { return ControlClient(*RuntimeDir::find().connect("g")); }
    UniqueFd raw() {
        UniqueFd socket = *RuntimeDir::find().connect("g");
        // A test that gets no answer fails instead of hanging.
        const timeval patience{20, 0};
        ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        return socket;
    }

    test::TempDir dir_;
    std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
    std::unique_ptr<ConsoleHub> hub_ = *ConsoleHub::create();
    test::FakeMachine machine_{GuestConfig{}, *hub_};
    std::unique_ptr<ControlServer> server_ = std::make_unique<ControlServer>(*loop_);
    std::atomic<bool> detached_ = false;
    std::unique_ptr<GuestControl> control_ = std::make_unique<GuestControl>(
        "g", machine_, *hub_, *server_, [this] { detached_ = true; });
    std::optional<GuestLock> lock_;
    EventLoop::Watch watch_;
    std::jthread thread_;
};

/// Sends text; then everything that comes until the server closes, or `lines` lines.
std::vector<std::string> exchange(const UniqueFd& socket, std::string_view text, size_t lines) {
    while (!text.empty()) {
        const ssize_t n = ::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL);
        if (n <= 0) {
            break;
        }
        text.remove_prefix(static_cast<size_t>(n));
    }
    std::vector<std::string> answers;
    std::string line;
    char c = 0;
    while (answers.size() < lines && ::recv(socket.get(), &c, 1, 0) == 1) {
        if (c == '\n') {
            answers.push_back(std::exchange(line, {}));
        } else {
            line += c;
        }
    }
    return answers;
}

TEST_F(ControlServerTest, Methods) {
    auto a = client();
    const auto status = a.call("status");
    ASSERT_TRUE(status) << status.error().message;
    EXPECT_EQ((*status)["name"], "g");
    EXPECT_EQ((*status)["state"], "running");
    EXPECT_EQ((*status)["pid"], ::getpid());
    EXPECT_EQ((*status)["memory_bytes"], uint64_t{256} << 20);
    EXPECT_EQ((*status)["vcpus"].size(), 1u);
    EXPECT_TRUE(a.call("pause"));
    EXPECT_EQ((*client().call("status"))["state"], "paused");
    EXPECT_TRUE(a.call("resume"));
    EXPECT_EQ((*a.call("status"))["state"], "running");
    EXPECT_TRUE(a.call("version")->contains("version"));
    EXPECT_THAT(a.call("reboot").error().message, HasSubstr("no such method"));
    EXPECT_THAT(a.call("pause", {{"x", 1}}).error().message, HasSubstr("unknown parameter 'x'"));
    EXPECT_THAT(a.call("console.input", {{"data", "!"}}).error().message, HasSubstr("base64"));
    EXPECT_FALSE(a.call("console.input"));
}

TEST_F(ControlServerTest, Events) {
    const auto socket = raw();
    const auto lines = exchange(socket,
                                "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscribe\"}\n"
                                "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"pause\"}\n"
                                "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"pause\"}\n"
                                "{\"jsonrpc\":\"2.0\",\"method\":\"resume\"}\n"
                                "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"stop\"}\n",
                                7);
    ASSERT_EQ(lines.size(), 7u);
    EXPECT_THAT(lines[0], HasSubstr("\"id\":1"));
    EXPECT_THAT(lines[1], HasSubstr("guest.paused"));
    EXPECT_THAT(lines[2], HasSubstr("\"id\":2"));
    EXPECT_THAT(lines[3], HasSubstr("\"id\":3"));  // paused already: no event
    EXPECT_THAT(lines[4], HasSubstr("guest.resumed"));
    EXPECT_THAT(lines[5], HasSubstr("\"id\":4"));
    const auto ended = Json::parse(lines[6]);
    EXPECT_EQ(ended["method"], "guest.stopped");
    EXPECT_EQ(ended["params"]["reason"], "stopped");
    EXPECT_EQ(ended["params"]["exit_code"], 0);
}

TEST_F(ControlServerTest, ConsoleInputAndOutput) {
    const auto socket = raw();
    std::string requests =
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"console\"}\n"
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"console.input\",\"params\":{\"data\":\"aGk=\"}}"
        "\n";
    const std::string wanted = "fake guest ready\r\nhi";
    std::string seen;
    bool taken = false;
    while (seen.size() < wanted.size() || !taken) {
        const auto lines = exchange(socket, std::exchange(requests, {}), 1);
        ASSERT_EQ(lines.size(), 1u);
        const auto message = Json::parse(lines[0]);
        if (message.contains("method")) {
            EXPECT_EQ(message["method"], "console.output");
            seen += *decode_base64(message["params"]["data"].get<std::string>());
        } else if (message["id"] == 2) {
            EXPECT_EQ(message["result"]["accepted"], 2);
            taken = true;
        }
    }
    EXPECT_EQ(seen, wanted);
}

TEST_F(ControlServerTest, HostileLines) {
    const auto socket = raw();
    const auto lines =
        exchange(socket,
                 std::string("\xff\xfe\n[1,2]\n{\"id\":5}\n\n") + std::string(500000, '[') + "\n" +
                     "{\"jsonrpc\":\"2.0\",\"id\":6,\"method\":\"version\"}\n",
                 6);
    ASSERT_EQ(lines.size(), 6u);
    EXPECT_THAT(lines[0], HasSubstr("-32700"));
    EXPECT_THAT(lines[1], HasSubstr("batches"));
    EXPECT_THAT(lines[2], HasSubstr("\"id\":5"));
    EXPECT_THAT(lines[4], HasSubstr("nested"));
    EXPECT_THAT(lines[5], HasSubstr("\"id\":6"));
}

TEST_F(ControlServerTest, EndlessLineEndsTheConnection) {
    const auto lines = exchange(raw(), std::string(LineStream::kMaxLine + 100000, 'x'), 5);
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_THAT(lines[0], HasSubstr("longer than 1 MiB"));
    EXPECT_TRUE(client().call("version"));
}

TEST_F(ControlServerTest, ClientThatNeverReadsIsBounded) {
    const auto socket = raw();
    const std::string request = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}\n";
    // The server stops reading at some point, so that sending blocks.
    size_t sent = 0;
    for (int waits = 0; waits < 10;) {
        const ssize_t n = ::send(socket.get(), request.data(), request.size(), MSG_DONTWAIT);
        if (n < 0) {
            ++waits;
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        } else {
            waits = 0;
            sent += static_cast<size_t>(n);
        }
        ASSERT_LT(sent, size_t{8} << 20);
    }
    EXPECT_TRUE(client().call("version"));
    // And goes on when the client reads.
    const size_t requests = sent / request.size();
    EXPECT_GT(requests, 100u);
    EXPECT_EQ(exchange(socket, "", requests).size(), requests);
}

TEST_F(ControlServerTest, SlowConsoleLosesTheOldestBytes) {
    const auto socket = raw();
    ASSERT_EQ(exchange(socket, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"console\"}\n", 1).size(),
              1u);
    auto other = client();
    const Json flood = {{"data", encode_base64("flood\r")}};
    for (int i = 0; i < 10; ++i) {
        ASSERT_TRUE(other.call("console.input", flood));
        std::this_thread::sleep_for(std::chrono::milliseconds(6));
    }
    uint64_t lost = 0;
    uint64_t seen = 0;
    const uint64_t total = 18 + 10 * (6 + (uint64_t{1} << 20) + 14);
    while (seen + lost < total) {
        const auto lines = exchange(socket, "", 1);
        ASSERT_EQ(lines.size(), 1u);
        const auto params = Json::parse(lines[0])["params"];
        lost += params.value("lost", uint64_t{0});
        seen += decode_base64(params["data"].get<std::string>())->size();
    }
    EXPECT_EQ(seen + lost, total);
    EXPECT_GT(lost, 0u);
}

TEST_F(ControlServerTest, TooManyClients) {
    std::vector<UniqueFd> sockets;
    for (size_t i = 0; i < ControlServer::kMaxConnections; ++i) {
        sockets.push_back(raw());
    }
    // Each of them has been accepted once the last one is served.
    EXPECT_EQ(exchange(sockets.back(), "{}\n", 1).size(), 1u);
    const auto refused = exchange(raw(), "", 2);
    ASSERT_EQ(refused.size(), 1u);
    EXPECT_THAT(refused[0], HasSubstr("64 clients"));
    sockets.pop_back();
    Result<Json> answer = client().call("version");
    for (int i = 0; i < 100 && !answer; ++i) {
        answer = client().call("version");
    }
    EXPECT_TRUE(answer);
}

TEST_F(ControlServerTest, OwnerThatGoesTakesTheGuestAlong) {
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    UniqueFd owner(pair[0]);
    loop_->call([&] { EXPECT_TRUE(control_->adopt_owner(UniqueFd(pair[1]))); });
    const auto watcher = raw();
    ASSERT_EQ(
        exchange(watcher, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscribe\"}\n", 1).size(),
        1u);
    owner.reset();
    EXPECT_THAT(exchange(watcher, "", 1).at(0), HasSubstr("guest.stopped"));
    EXPECT_FALSE(detached_);
}

TEST_F(ControlServerTest, OwnerThatDetachesDoesNot) {
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    loop_->call([&] { EXPECT_TRUE(control_->adopt_owner(UniqueFd(pair[1]))); });
    {
        ControlClient owner{UniqueFd(pair[0])};
        EXPECT_TRUE(client().call("detach"));  // somebody else's detach does not count
        EXPECT_FALSE(detached_);
        EXPECT_TRUE(owner.call("detach"));
        EXPECT_TRUE(detached_);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ((*client().call("status"))["state"], "running");
}

TEST_F(ControlServerTest, FilesArePrivate) {
    struct stat info {};
    const RuntimeDir runtime = RuntimeDir::find();
    ASSERT_EQ(::stat(runtime.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777u, 0700u);
    ASSERT_EQ(::stat(runtime.socket_path("g").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777u, 0600u);
}

class RuntimeDirTest : public testing::Test {
 protected:
    RuntimeDirTest() { ::setenv("XDG_RUNTIME_DIR", dir_.path().c_str(), 1); }
    test::TempDir dir_;
};

TEST_F(RuntimeDirTest, ANameIsTakenOnce) {
    const RuntimeDir runtime = RuntimeDir::find();
    EXPECT_TRUE(runtime.running()->empty());
    {
        const auto lock = runtime.lock("a");
        ASSERT_TRUE(lock) << lock.error().message;
        const auto again = runtime.lock("a");
        ASSERT_FALSE(again);
        EXPECT_EQ(exit_code(again.error().kind), 1);
        EXPECT_THAT(again.error().message,
                    HasSubstr(fmt::format("a guest named 'a' is running (pid {})", ::getpid())));
        EXPECT_EQ(*runtime.running(), std::vector<std::string>{"a"});
    }
    EXPECT_TRUE(runtime.running()->empty());
    EXPECT_TRUE(std::filesystem::is_empty(runtime.path()));
    EXPECT_TRUE(runtime.lock("a"));
}

TEST_F(RuntimeDirTest, LeftoversOfAKilledProcess) {
    const RuntimeDir runtime = RuntimeDir::find();
    const auto leave_behind = [&] {
        ASSERT_TRUE(runtime.lock("tmp"));  // makes the folder
        dir_.file("ivmm/dead.lock", "1\n");
        dir_.file("ivmm/dead.sock");
        dir_.file("ivmm/dead.log", "why it died");
    };
    leave_behind();
    EXPECT_THAT(runtime.connect("dead").error().message, HasSubstr("no guest named 'dead'"));
    EXPECT_TRUE(runtime.running()->empty());
    EXPECT_FALSE(std::filesystem::exists(runtime.socket_path("dead")));
    EXPECT_TRUE(std::filesystem::exists(runtime.log_path("dead")));
    leave_behind();
    auto lock = runtime.lock("dead");
    ASSERT_TRUE(lock);
    EXPECT_TRUE(lock->listen());
}

TEST_F(RuntimeDirTest, FolderOfOthersIsRefused) {
    ASSERT_EQ(::mkdir((dir_.path() + "/ivmm").c_str(), 0755), 0);
    const auto lock = RuntimeDir::find().lock("a");
    ASSERT_FALSE(lock);
    EXPECT_EQ(lock.error().kind, ErrorKind::kHost);
    EXPECT_FALSE(RuntimeDir::find().connect("a"));
    EXPECT_FALSE(RuntimeDir::find().running());
}

TEST_F(RuntimeDirTest, PathTooLongForASocket) {
    const std::string deep = dir_.path() + "/" + std::string(100, 'd');
    ASSERT_EQ(::mkdir(deep.c_str(), 0700), 0);
    ::setenv("XDG_RUNTIME_DIR", deep.c_str(), 1);
    auto lock = RuntimeDir::find().lock("a");
    ASSERT_TRUE(lock);
    EXPECT_THAT(lock->listen().error().message, HasSubstr("XDG_RUNTIME_DIR"));
}

}  // namespace
}  // namespace ivmm
