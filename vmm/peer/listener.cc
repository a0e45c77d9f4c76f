#include "vmm/peer/listener.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "vmm/cli/cli.h"
#include "vmm/cli/signals.h"

namespace ivmm::peer {
namespace {

constexpr size_t kMaxConnections = 32;
constexpr size_t kMaxSessions = 16;
constexpr std::chrono::seconds kSweepPeriod{5};
/// For how long a replica waits for its connection to come back.
constexpr std::chrono::minutes kKeep{10};
/// For the end of a connection that another one takes the place of.
constexpr std::chrono::seconds kTakeOver{20};
constexpr Link::Milliseconds kHelloPatience{10'000};
/// What the other side may yet have to say when it has been told why it is not served.
constexpr Link::Milliseconds kLinger{1000};

/// Tells the other side why, and lets it read that.
void refuse(Link& link, const Error& error) {
    Failed failed;
    failed.reason = error.message;
    if (!link.send(failed)) {
        return;
    }
    const auto end = std::chrono::steady_clock::now() + kLinger;
    while (std::chrono::steady_clock::now() < end && link.receive_frame(kLinger)) {
    }
}

}  // namespace

Result<std::unique_ptr<Listener>> Listener::start(const std::string& address, HostOptions options,
                                                  EventLoop& loop) {
    std::unique_ptr<Listener> self(new Listener(std::move(options), loop));
    IVMM_ASSIGN(self->socket_, listen_at(address));
    IVMM_ASSIGN(self->socket_watch_,
                loop.watch(self->socket_.get(), EPOLLIN,
                           [listener = self.get()](uint32_t) { listener->accept(); }));
    IVMM_ASSIGN(self->timer_, Timer::create(loop, [listener = self.get()] { listener->sweep(); }));
    self->timer_.set_every(kSweepPeriod);
    return self;
}

Listener::~Listener() {
    std::list<Connection> ending;
    {
        const std::scoped_lock lock(mutex_);
        for (const auto& connection : connections_) {
            connection.interrupt.signal();
        }
        ending.splice(ending.end(), connections_);
    }
    ending.clear();
}

void Listener::accept() {
    UniqueFd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    auto interrupt = EventFd::create();
    if (!socket || !interrupt) {
        return;
    }
    sweep();
    const std::scoped_lock lock(mutex_);
    if (connections_.size() >= kMaxConnections) {
        refusals_.warning("{} hosts are connected: another one is refused", connections_.size());
        return;
    }
    Connection& connection = connections_.emplace_back(*std::move(interrupt));
    connection.thread =
        std::jthread([this, &connection, fd = std::make_shared<UniqueFd>(std::move(socket))] {
            ::pthread_setname_np(::pthread_self(), "peer");
            if (const auto served = serve(std::move(*fd), connection.interrupt.fd()); !served) {
                refusals_.warning("{}", served.error().message);
            }
            const std::scoped_lock done(mutex_);
            connection.done = true;
        });
}

void Listener::sweep() {
    std::list<Connection> done;
    std::vector<std::unique_ptr<Session>> old;
    {
        const std::scoped_lock lock(mutex_);
        for (auto at = connections_.begin(); at != connections_.end();) {
            const auto next = std::next(at);
            if (at->done) {
                done.splice(done.end(), connections_, at);
            }
            at = next;
        }
        for (auto at = sessions_.begin(); at != sessions_.end();) {
            const auto next = std::next(at);
            if (at->second.session && Clock::now() - at->second.left > kKeep) {
                old.push_back(std::move(at->second.session));
                sessions_.erase(at);
            }
            at = next;
        }
    }
}

void Listener::adopt(ForkTarget::Child child) {
    const pid_t pid = child.pid;
    Clone clone;
    clone.pidfd = std::move(child.pidfd);
    auto watch = loop_.watch(clone.pidfd.get(), EPOLLIN, [this, pid](uint32_t) {
        ::waitpid(pid, nullptr, WNOHANG);
        clones_.erase(pid);
    });
    if (watch) {
        clone.watch = *std::move(watch);
    }
    clones_.emplace(pid, std::move(clone));
}

Result<void> Listener::serve(UniqueFd socket, int interrupt) {
    IVMM_ASSIGN(auto stream, TlsStream::accept(std::move(socket), options_.keys, interrupt));
    Link link(std::move(stream));
    auto outcome = [&]() -> Result<void> {
        IVMM_ASSIGN(const auto hello, link.receive<Hello>(kHelloPatience));
        return serve_session(link, hello, interrupt);
    }();
    if (!outcome) {
        refuse(link, outcome.error());
        return annotate(std::move(outcome).error(), "the connection of " + link.name() + " ends");
    }
    return outcome;
}

Result<void> Listener::serve_session(Link& link, const Hello& hello, int interrupt) {
    const Id id{link.stream().peer_key(), hello.id};
    IVMM_ASSIGN(auto taken, take(id, hello, interrupt));
    log::debug("{} replicates guest '{}'{}", link.name(), printable(hello.config.name),
               taken.fresh ? "" : ", and goes on from where it was");
    auto error = taken.session->serve(link, taken.fresh, [this](ForkTarget::Child child) {
        // Shared only because std::function must be copyable.
        loop_.post([this, shared = std::make_shared<ForkTarget::Child>(std::move(child))] {
            adopt(std::move(*shared));
        });
    });
    give_back(id, std::move(taken.session));
    return Unexpected{std::move(error)};
}

Result<Listener::Taken> Listener::take(const Id& id, const Hello& hello, int interrupt) {
    std::unique_lock lock(mutex_);
    if (const auto known = sessions_.find(id); known != sessions_.end()) {
        if (!known->second.session) {
            // Its old connection is cut, and nobody has noticed here yet.
            for (const auto& connection : connections_) {
                if (connection.interrupt.fd() == known->second.connection) {
                    connection.interrupt.signal();
                }
            }
        }
        const auto there = [&] {
            const auto entry = sessions_.find(id);
            return entry == sessions_.end() || entry->second.session;
        };
        if (!given_back_.wait_for(lock, kTakeOver, there)) {
            return fail("another connection has this replica");
        }
        if (const auto entry = sessions_.find(id); entry != sessions_.end()) {
            entry->second.connection = interrupt;
            return Taken{std::move(entry->second.session), false};
        }
    }
    if (sessions_.size() >= kMaxSessions) {
        return fail("this host has {} replicas, and there may be no more", sessions_.size());
    }
    sessions_[id].connection = interrupt;
    lock.unlock();
    auto session = Session::create(hello, options_);
    if (!session) {
        give_back(id, nullptr);
        return Unexpected{std::move(session).error()};
    }
    return Taken{*std::move(session), true};
}

void Listener::give_back(const Id& id, std::unique_ptr<Session> session) {
    const std::scoped_lock lock(mutex_);
    if (session && session->can_go_on()) {
        sessions_[id].session = std::move(session);
        sessions_[id].left = Clock::now();
        sessions_[id].connection = -1;
    } else {
        sessions_.erase(id);
    }
    given_back_.notify_all();
}

int run_listener(const std::string& address, const HostOptions& options) {
    const EndSignals blocked;
    const auto run = [&]() -> Result<void> {
        IVMM_ASSIGN(auto loop, EventLoop::create());
        IVMM_ASSIGN(const auto signals, EndSignals::open());
        IVMM_ASSIGN(const auto signal_watch, loop->watch(signals.get(), EPOLLIN, [&](uint32_t) {
            if (EndSignals::take(signals.get())) {
                loop->stop();
            }
        }));
        IVMM_ASSIGN(const auto listener, Listener::start(address, options, *loop));
        cli::print("standbys for other hosts at {}\n", address);
        static_cast<void>(std::fflush(stdout));
        loop->run();
        return {};
    };
    const auto result = run();
    return result ? 0 : cli::report(result.error());
}

}  // namespace ivmm::peer
