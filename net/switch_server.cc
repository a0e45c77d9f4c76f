#include "net/switch_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"

namespace ivmm::net {
namespace {

constexpr int kRounds = 8;  // of batches, before others get their turn
constexpr std::chrono::milliseconds kTick{20};

bool is_ours(int socket) {
    ucred peer{};
    socklen_t length = sizeof(peer);
    return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
           (peer.uid == ::geteuid() || peer.uid == 0);
}

Result<UniqueFd> duplicate(int fd) {
    UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!copy) {
        return fail_errno("cannot duplicate a descriptor");
    }
    return copy;
}

}  // namespace

/// A cable and what belongs to it.
struct SwitchServer::Guest {
    Guest(EventFd own_, EventFd peers_) : own(std::move(own_)), peers(std::move(peers_)) {}
    EventFd own;
    EventFd peers;
    UniqueFd socket;
    RingPort* port = nullptr;  // the switch's
    EventLoop::Watch socket_watch;
    EventLoop::Watch frames_watch;
};

SwitchServer::SwitchServer(EventLoop& loop, Switch& net, Admit admit)
    : loop_(loop), net_(net), admit_(std::move(admit)) {}

Result<std::unique_ptr<SwitchServer>> SwitchServer::create(EventLoop& loop, Switch& net,
                                                           const std::string& path, Admit admit) {
    std::unique_ptr<SwitchServer> self(new SwitchServer(loop, net, std::move(admit)));
    auto* const raw = self.get();
    IVMM_ASSIGN(self->listener_, listen_for_cables(path));
    self->path_ = path;
    IVMM_ASSIGN(self->listener_watch_,
                loop.watch(self->listener_.get(), EPOLLIN, [raw](uint32_t) { raw->accept(); }));
    IVMM_ASSIGN(self->timer_,
                Timer::create(loop, [raw] { raw->net_.tick(clock_ns(CLOCK_MONOTONIC)); }));
    self->timer_.set_every(kTick);
    return self;
}

SwitchServer::~SwitchServer() {
    while (!guests_.empty()) {
        disconnect(guests_.begin()->first);
    }
    while (!taps_.empty()) {
        disconnect(taps_.begin()->first);
    }
    if (!path_.empty()) {
        ::unlink(path_.c_str());
    }
}

Result<void> SwitchServer::attach_tap(PortId id, std::unique_ptr<TapPort> tap) {
    IVMM_ASSIGN(auto watch, loop_.watch(tap->fd(), EPOLLIN, [this, id](uint32_t events) {
        if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
            log::error("a TAP of the switch was deleted");
            disconnect(id);
            return;
        }
        for (int i = 0; i < kRounds && net_.poll(id, clock_ns(CLOCK_MONOTONIC)) > 0; ++i) {
        }
    }));
    net_.attach(id, std::move(tap));
    taps_.insert_or_assign(id, std::move(watch));
    return {};
}

void SwitchServer::accept() {
    UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket || !is_ours(socket.get()) || waiting_.size() >= kMaxWaiting) {
        return;
    }
    const int number = socket.get();
    auto watch = loop_.watch(number, EPOLLIN, [this, number](uint32_t) { greet(number); });
    if (watch) {
        waiting_.insert_or_assign(number, Waiting{std::move(socket), *std::move(watch)});
    }
}

Result<PortId> SwitchServer::admit(const CableMessage& hello, const MacAddress& mac) {
    const std::string name(hello.port.data(), ::strnlen(hello.port.data(), hello.port.size()));
    if (hello.type != CableMessage::kHello || name.empty()) {
        return fail("it does not say which port");
    }
    IVMM_ASSIGN(const PortId id, admit_(name, mac));
    if (net_.is_attached(id)) {
        return fail("port '{}' is in use", name);
    }
    return id;
}

void SwitchServer::greet(int socket) {
    // Whatever comes, it waits no longer.
    auto node = waiting_.extract(socket);
    Waiting& waiting = node.mapped();
    const auto hello = receive_message(socket);
    if (!hello || !*hello) {
        return;
    }
    const auto refuse = [&](const Error& error) {
        CableMessage answer;
        answer.type = CableMessage::kRefused;
        const size_t length = std::min(error.message.size(), answer.error.size() - 1);
        std::copy_n(error.message.begin(), length, answer.error.begin());
        send_message(socket, answer);
    };
    const auto id = admit(**hello, (*hello)->mac);
    if (!id) {
        refuse(id.error());
        return;
    }
    waiting.watch.reset();
    auto ours = duplicate(socket);
    auto descriptors =
        ours ? connect_guest(*id, *std::move(ours))
             : Result<std::array<UniqueFd, 3>>(UnexpectedError<Error>{std::move(ours).error()});
    if (!descriptors) {
        refuse(descriptors.error());
        return;
    }
    CableMessage welcome;
    welcome.type = CableMessage::kWelcome;
    const std::array<int, 3> numbers{(*descriptors)[0].get(), (*descriptors)[1].get(),
                                     (*descriptors)[2].get()};
    if (!send_message(socket, welcome, numbers)) {
        disconnect(*id);
    }
}

Result<std::array<UniqueFd, 3>> SwitchServer::connect_guest(PortId id, UniqueFd socket) {
    IVMM_ASSIGN(auto own, EventFd::create());
    IVMM_ASSIGN(auto peers, EventFd::create());
    std::array<UniqueFd, 3> descriptors;
    IVMM_ASSIGN(descriptors[0], SharedMemory::create());
    IVMM_ASSIGN(descriptors[1], duplicate(own.fd()));
    IVMM_ASSIGN(descriptors[2], duplicate(peers.fd()));
    IVMM_ASSIGN(auto memory, SharedMemory::map(descriptors[0]));
    auto guest = std::make_unique<Guest>(std::move(own), std::move(peers));
    guest->socket = std::move(socket);
    IVMM_ASSIGN(guest->socket_watch, loop_.watch(guest->socket.get(), EPOLLIN,
                                                 [this, id](uint32_t) { on_message(id); }));
    IVMM_ASSIGN(guest->frames_watch,
                loop_.watch(guest->own.fd(), EPOLLIN, [this, id](uint32_t) { serve(id); }));
    auto port = std::make_unique<RingPort>(std::move(memory), guest->peers);
    guest->port = port.get();
    guest->own.signal();  // the first round makes it sleep
    guests_.insert_or_assign(id, std::move(guest));
    net_.attach(id, std::move(port));
    return descriptors;
}

Result<CableEnd> SwitchServer::make_cable(PortId id) {
    if (net_.is_attached(id)) {
        return fail("the port is in use");
    }
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) != 0) {
        return fail_errno("cannot create a socket");
    }
    CableEnd end;
    end.socket.reset(ends[0]);
    IVMM_ASSIGN(auto descriptors, connect_guest(id, UniqueFd(ends[1])));
    end.memory = std::move(descriptors[0]);
    end.wakes_switch = std::move(descriptors[1]);
    end.wakes_guest = std::move(descriptors[2]);
    return end;
}

void SwitchServer::disconnect(PortId id) {
    taps_.erase(id);
    net_.detach(id);
    guests_.erase(id);
}

void SwitchServer::on_message(PortId id) {
    Guest& guest = *guests_.at(id);
    const auto message = receive_message(guest.socket.get());
    if (!message) {
        disconnect(id);
    } else if (*message && (*message)->type == CableMessage::kOffloads) {
        guest.port->set_offloads(offloads_from_bits((*message)->offloads));
    }
}

void SwitchServer::serve(PortId id) {
    Guest& guest = *guests_.at(id);
    guest.own.drain();
    bool more = true;
    for (int i = 0; i < kRounds && more; ++i) {
        more = net_.poll(id, clock_ns(CLOCK_MONOTONIC)) > 0;
    }
    if (guest.port->broken()) {
        log::warning("a guest's process has broken the rules of its cable; it is disconnected");
        disconnect(id);
    } else if (more || !guest.port->sleep()) {
        guest.own.signal();
    }
}

}  // namespace ivmm::net
