#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <unordered_map>

#include "net/flow_table.h"
#include "net/frame.h"

namespace ivmm::net {

/// What was decided for the first fragment of a packet, for the others: those have no ports. Others
/// that come before it wait. Bounded in number, bytes and time. One thread.
class Fragments {
 public:
    static constexpr size_t kMost = 4096;
    static constexpr size_t kMostWaiting = 256;
    static constexpr uint32_t kLifetime = 30;  ///< seconds
    static constexpr uint32_t kWaiting = 2;    ///< seconds

    struct Key {
        IpAddress source;
        IpAddress destination;
        uint32_t id = 0;
        uint16_t outer_vlan = 0;
        uint16_t inner_vlan = 0;
        uint8_t protocol = 0;
        Member sender = kRemote;
        std::array<uint8_t, 2> zero{};

        bool operator==(const Key&) const = default;
    };
    static_assert(std::has_unique_object_representations_v<Key>);

    static Key key(const Headers& headers, Member sender);

    void decide(const Key& key, Member owner, uint32_t now_s);
    std::optional<Member> find(const Key& key, uint32_t now_s) const;
    /// Lets a fragment wait for its first; false: there is no room.
    bool wait(const Key& key, const Frame& frame, uint32_t now_s);
    /// Those that have waited for this one, in their order.
    void release(const Key& key, const std::function<void(Frame)>& take);
    /// How many that waited have gone for good.
    size_t expire(uint32_t now_s);

 private:
    struct Decision {
        Member owner = kPrimary;
        uint32_t expires_s = 0;
    };
    struct Waiting {
        Key key;
        uint32_t expires_s = 0;
        StoredFrame frame;
    };
    struct Hash {
        size_t operator()(const Key& key) const;
    };

    std::unordered_map<Key, Decision, Hash> decisions_;
    std::deque<Waiting> waiting_;
};

}  // namespace ivmm::net
