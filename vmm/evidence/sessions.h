#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "net/headers.h"
#include "vmm/control/json_rpc.h"
#include "vmm/evidence/capture_reader.h"

namespace ivmm::evidence {

/// The conversations in a clone's captures: who talked to whom, when, how much, what was done about
/// it, and what was said where that is text (telnet, HTTP, names asked of the DNS). Bounded,
/// whatever there is. One thread.
class Sessions {
 public:
    static constexpr size_t kMost = 50'000;
    static constexpr size_t kMostText = size_t{256} << 10;  ///< of a session, in bytes
    static constexpr size_t kMostTextOfAll = size_t{64} << 20;

    void take(const CapturedFrame& frame);

    /// An object for each (docs/evidence.md), in the order in which they were seen first.
    std::vector<rpc::Json> describe() const;
    /// Frames that found no room.
    uint64_t left_out() const { return left_out_; }

 private:
    struct Key {
        net::IpAddress remote;
        net::IpAddress local;
        uint16_t remote_port = 0;
        uint16_t local_port = 0;
        uint8_t protocol = 0;
        auto operator<=>(const Key&) const = default;
    };
    struct Words {
        uint64_t time_ns;
        bool from_clone;
        std::string text;
    };
    struct Side {
        uint64_t bytes = 0;
        uint64_t frames = 0;
        uint32_t next = 0;  // sequence number
        bool is_known = false;
    };
    struct Session {
        Key key;
        uint64_t first_ns = 0;
        uint64_t last_ns = 0;
        bool opened_here = false;  // its beginning was seen
        bool opened_by_clone = false;
        uint64_t dropped = 0;  // frames of the clone
        std::string verdict;   // of the clone's frames
        Side clone;
        Side remote;
        size_t text_bytes = 0;
        std::vector<Words> words;
    };

    Session* find(const Key& key, const CapturedFrame& frame);
    void take_payload(Session& session, const CapturedFrame& frame, const net::Headers& headers);
    void add_words(Session& session, uint64_t time_ns, bool from_clone, std::string_view text);

    std::map<Key, size_t> index_;
    std::vector<Session> sessions_;
    size_t text_bytes_ = 0;
    uint64_t left_out_ = 0;
};

}  // namespace ivmm::evidence
