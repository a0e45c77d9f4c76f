#include "vmm/live/running_processes.h"

#include <algorithm>

#include "vmm/control/runtime_dir.h"

namespace ivmm::live {
namespace {

using Clock = std::chrono::steady_clock;

/// So many killed ones are remembered.
constexpr size_t kMostKilled = 100;

std::vector<std::pair<std::string, RuntimeDir>> folders() {
    return {{"guest", RuntimeDir::find()},
            {"overlay", RuntimeDir::find_overlay()},
            {"switch", RuntimeDir::find_switch()},
            {"watch", RuntimeDir::find_watch()}};
}

RuntimeDir folder_of(const std::string& kind) {
    for (auto& [name, folder] : folders()) {
        if (name == kind) {
            return folder;
        }
    }
    return RuntimeDir::find();
}

}  // namespace

Result<void> RunningProcesses::find() {
    std::set<Key> running;
    for (const auto& [kind, folder] : folders()) {
        IVMM_ASSIGN(const auto found, folder.scan());
        for (const auto& name : found.running) {
            running.emplace(kind, name);
        }
        for (const auto& name : found.removed) {
            if (killed_.size() < kMostKilled) {
                killed_.emplace(kind, name);
            }
        }
    }
    std::erase_if(peers_, [&](const auto& peer) { return !running.contains(peer.first); });
    for (const auto& key : running) {
        peers_.try_emplace(key);
        killed_.erase(key);
    }
    return {};
}

void RunningProcesses::connect(const Key& key, Peer& peer, Deadline deadline) {
    const auto left = std::chrono::ceil<Milliseconds>(deadline - Clock::now());
    auto socket = folder_of(key.first).connect(key.second, std::max(left, Milliseconds(1)));
    if (socket) {
        peer.client.emplace(*std::move(socket));
    } else {
        peer.gone = socket.error().code == 0;
    }
}

void RunningProcesses::note(Peer& peer, const Error& error) {
    if (error.code == ETIMEDOUT) {
        peer.late = true;
        peer.up = false;
    } else if (error.code == EPIPE) {
        peer.client.reset();
        peer.gone = true;
    }
    // Otherwise it has answered that it cannot.
}

void RunningProcesses::take_late(Peer& peer) {
    const auto answer = peer.client->answer(Clock::now() + Milliseconds(1));
    peer.late = false;
    if (!answer) {
        note(peer, answer.error());
    }
}

void RunningProcesses::call(const Methods& methods, size_t number, Deadline deadline) {
    std::vector<std::pair<Peer*, std::string>> asked;
    for (auto& [key, peer] : peers_) {
        const auto of_kind = methods.find(key.first);
        if (!peer.client || peer.late || of_kind == methods.end() ||
            number >= of_kind->second.size()) {
            continue;
        }
        const std::string& method = of_kind->second[number];
        if (const auto sent = peer.client->ask(method, rpc::Json::object(), deadline); !sent) {
            note(peer, sent.error());
        } else {
            asked.emplace_back(&peer, method);
        }
    }
    for (const auto& [peer, method] : asked) {
        // What has come already is taken even when the time is over.
        auto answer = peer->client->answer(std::max(deadline, Clock::now() + Milliseconds(1)));
        if (answer) {
            peer->results[method] = *std::move(answer);
        } else {
            note(*peer, answer.error());
        }
    }
}

Result<std::vector<ProcessAnswers>> RunningProcesses::ask(const Methods& methods,
                                                          Milliseconds patience) {
    const Deadline deadline = Clock::now() + patience;
    IVMM_TRY(find());
    size_t most = 0;
    for (const auto& [kind, names] : methods) {
        most = std::max(most, names.size());
    }
    for (auto& [key, peer] : peers_) {
        peer.gone = false;
        peer.results.clear();
        if (!peer.client) {
            peer.late = false;
            connect(key, peer, deadline);
        } else if (peer.late) {
            take_late(peer);
        }
        peer.up = peer.client && !peer.late;
    }
    for (size_t number = 0; number < most; ++number) {
        call(methods, number, deadline);
    }
    std::vector<ProcessAnswers> all;
    for (auto& [key, peer] : peers_) {
        if (!peer.gone) {
            all.push_back({key.first, key.second, peer.up, std::move(peer.results)});
        }
    }
    for (const auto& [kind, name] : killed_) {
        all.push_back({kind, name, false, {}});
    }
    return all;
}

}  // namespace ivmm::live
