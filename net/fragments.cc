#include "net/fragments.h"

#include <xxhash.h>

namespace ivmm::net {

size_t Fragments::Hash::operator()(const Key& key) const {
    return XXH3_64bits(&key, sizeof(key));
}

Fragments::Key Fragments::key(const Headers& headers, Member sender) {
    Key key;
    key.source = headers.tuple.source;
    key.destination = headers.tuple.destination;
    key.id = headers.fragment_id;
    key.outer_vlan = headers.outer_vlan;
    key.inner_vlan = headers.inner_vlan;
    // IPv6 fragments of one packet may tell different protocols: RFC 8200 counts the first one.
    key.protocol = key.source.is_v4() ? headers.tuple.protocol : uint8_t{0};
    key.sender = sender;
    return key;
}

void Fragments::decide(const Key& key, Member owner, uint32_t now_s) {
    if (decisions_.size() >= kMost && !decisions_.contains(key)) {
        return;  // the later ones wait and go
    }
    decisions_[key] = {owner, now_s + kLifetime};
}

std::optional<Member> Fragments::find(const Key& key, uint32_t now_s) const {
    const auto found = decisions_.find(key);
    if (found == decisions_.end() || now_s >= found->second.expires_s) {
        return std::nullopt;
    }
    return found->second.owner;
}

bool Fragments::wait(const Key& key, const Frame& frame, uint32_t now_s) {
    if (waiting_.size() >= kMostWaiting || frame.size() > 2048) {
        return false;
    }
    waiting_.push_back({key, now_s + kWaiting, StoredFrame(frame)});
    return true;
}

void Fragments::release(const Key& key, const std::function<void(Frame)>& take) {
    std::deque<Waiting> others;
    std::deque<Waiting> all = std::move(waiting_);
    waiting_.clear();
    for (Waiting& one : all) {
        if (one.key == key) {
            take(one.frame.frame());
        } else {
            others.push_back(std::move(one));
        }
    }
    waiting_ = std::move(others);
}

size_t Fragments::expire(uint32_t now_s) {
    std::erase_if(decisions_, [&](const auto& entry) { return now_s >= entry.second.expires_s; });
    size_t gone = 0;
    while (!waiting_.empty() && now_s >= waiting_.front().expires_s) {
        waiting_.pop_front();
        ++gone;
    }
    return gone;
}

}  // namespace ivmm::net
