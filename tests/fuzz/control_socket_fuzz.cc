#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cstdlib>

#include "base/event_loop.h"
#include "tests/support/fake_machine.h"
#include "vmm/control/guest_control.h"

// The input is what a client writes to a guest's control socket before it closes its side. All
// that comes back must be lines of JSON-RPC, and the server must be done with the client at last.
namespace ivmm {
namespace {

void check(bool holds) {
    if (!holds) {
        std::abort();
    }
}

/// Writes the input and reads the answers, on the server's loop.
class Client {
 public:
    Client(EventLoop& loop, UniqueFd socket, std::string_view input)
        : loop_(loop), stream_(std::move(socket)), input_(input) {
        auto watch = loop_.watch(stream_.fd(), EPOLLIN | EPOLLOUT,
                                 [this](uint32_t events) { on_events(events); });
        check(watch.has_value());
        watch_ = std::move(*watch);
    }

 private:
    void on_events(uint32_t events) {
        if (events & EPOLLOUT) {
            const ssize_t n =
                ::send(stream_.fd(), input_.data(), input_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            input_.remove_prefix(n < 0 ? 0 : static_cast<size_t>(n));
            if (input_.empty() || (n < 0 && errno != EAGAIN)) {
                ::shutdown(stream_.fd(), SHUT_WR);
                watch_.set_events(EPOLLIN);
            }
        }
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
            const auto filled = stream_.fill();
            while (const auto line = stream_.next_line()) {
                const auto message = rpc::Json::parse(*line, nullptr, false);
                check(message.is_object() && message.value("jsonrpc", "") == "2.0");
            }
            if (filled != LineStream::Fill::kOk) {
                loop_.stop();
            }
        }
    }

    EventLoop& loop_;
    LineStream stream_;
    std::string_view input_;
    EventLoop::Watch watch_;
};

}  // namespace
}  // namespace ivmm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace ivmm;
    static const auto loop = *EventLoop::create();
    const auto console = *ConsoleHub::create();
    test::FakeMachine machine(GuestConfig{}, *console);
    ControlServer server(*loop);
    GuestControl control("fuzzed", machine, *console, server, [] {});
    check(machine.start([&](const Ending& ending) { control.announce_end(ending); }).has_value());
    std::array<int, 2> pair{};
    check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
    check(server.adopt(UniqueFd(pair[0])).has_value());
    const Client client(*loop, UniqueFd(pair[1]), {reinterpret_cast<const char*>(data), size});
    loop->run();
    return 0;
}
