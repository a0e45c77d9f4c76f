#pragma once

#include <array>
#include <condition_variable>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "base/event_fd.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "base/timer.h"
#include "vmm/peer/session.h"

namespace ivmm::peer {

/// Standbys for guests of other hosts, for whoever connects and has one of the keys. Made and
/// destroyed on the thread of the loop; each connection has a thread.
class Listener {
 public:
    /// `address`: "HOST:PORT". The loop must outlive the listener.
    static Result<std::unique_ptr<Listener>> start(const std::string& address, HostOptions options,
                                                   EventLoop& loop);
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    /// Ends all connections and standbys. Clones go on.
    ~Listener();

 private:
    using Clock = std::chrono::steady_clock;
    /// Of a replica: its owner's key, and its number there.
    using Id = std::pair<std::string, std::array<uint64_t, 2>>;
    struct Entry {
        std::unique_ptr<Session> session;  // null while a connection has it
        int connection = -1;               // what ends the connection that has it
        Clock::time_point left;            // when the last connection ended
    };
    struct Connection {
        explicit Connection(EventFd end) : interrupt(std::move(end)) {}
        EventFd interrupt;
        std::jthread thread;
        bool done = false;
    };
    struct Clone {
        UniqueFd pidfd;
        EventLoop::Watch watch;
    };

    Listener(HostOptions options, EventLoop& loop) : options_(std::move(options)), loop_(loop) {}
    void accept();
    void sweep();
    void adopt(ForkTarget::Child child);
    /// On the connection's thread.
    Result<void> serve(UniqueFd socket, int interrupt);
    Result<void> serve_session(Link& link, const Hello& hello, int interrupt);
    struct Taken {
        std::unique_ptr<Session> session;
        bool fresh;
    };
    Result<Taken> take(const Id& id, const Hello& hello, int interrupt);
    void give_back(const Id& id, std::unique_ptr<Session> session);

    const HostOptions options_;
    EventLoop& loop_;
    UniqueFd socket_;
    EventLoop::Watch socket_watch_;
    Timer timer_;
    std::map<pid_t, Clone> clones_;
    log::Throttle refusals_;

    std::mutex mutex_;  // guards what follows; nothing else is locked while it is held
    std::condition_variable given_back_;
    std::map<Id, Entry> sessions_;
    std::list<Connection> connections_;
};

/// `ivmm standby --listen`: until a SIGTERM, SIGINT or SIGHUP. Returns the exit code; errors have
/// been printed.
int run_listener(const std::string& address, const HostOptions& options);

}  // namespace ivmm::peer
