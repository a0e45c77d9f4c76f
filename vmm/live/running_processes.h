#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "vmm/control/control_client.h"

namespace ivmm::live {

/// A process of ivmm and what it has answered.
struct ProcessAnswers {
    std::string kind;                          ///< "guest", "switch", "overlay" or "watch"
    std::string name;                          ///< of the guest or switch; an overlay server's pid
    bool up = false;                           ///< false: it does not answer, or was killed
    std::map<std::string, rpc::Json> results;  ///< by method; those that succeeded
};

/// All processes of this user on this host, by their control sockets. Keeps its connections, so
/// that asking each second costs nobody a connection each time. One thread.
class RunningProcesses {
 public:
    using Milliseconds = std::chrono::milliseconds;
    /// Which methods, without parameters, to call of each kind.
    using Methods = std::map<std::string, std::vector<std::string>>;
    static constexpr Milliseconds kPatience{1000};

    /// Asks all that run, at the same time, and waits for at most `patience` in total. Of one that
    /// hangs, nothing is waited for again before it has answered. Errors (kHost): the folder of the
    /// sockets cannot be used.
    Result<std::vector<ProcessAnswers>> ask(const Methods& methods,
                                            Milliseconds patience = kPatience);

 private:
    using Key = std::pair<std::string, std::string>;  // kind, name
    using Deadline = ControlClient::Deadline;
    struct Peer {
        std::optional<ControlClient> client;
        bool late = false;  // it has not answered what it was asked last
        bool up = false;
        bool gone = false;  // it has just ended, or does not listen yet
        std::map<std::string, rpc::Json> results;
    };

    Result<void> find();
    static void connect(const Key& key, Peer& peer, Deadline deadline);
    static void take_late(Peer& peer);
    void call(const Methods& methods, size_t number, Deadline deadline);
    static void note(Peer& peer, const Error& error);

    std::map<Key, Peer> peers_;
    std::set<Key> killed_;  // and not started again
};

}  // namespace ivmm::live
