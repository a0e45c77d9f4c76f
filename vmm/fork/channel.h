#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/fork/messages.h"

namespace ivmm {

/// A connection between a primary's process and that of a standby: messages with descriptors over a
/// Unix stream socket. One thread at a time. The peer is a process of our own, but what it sends
/// is checked like anybody's.
class Channel {
 public:
    using Milliseconds = std::chrono::milliseconds;
    /// More than any message needs.
    static constexpr uint32_t kMaxPayload = uint32_t{16} << 20;

    /// `peer`: what error messages call the other process.
    Channel(UniqueFd socket, std::string peer)
        : socket_(std::move(socket)), peer_(std::move(peer)) {}

    int fd() const { return socket_.get(); }

    template <StateStruct Message>
    Result<void> send(const Message& message, const std::vector<int>& descriptors = {}) {
        return send_bytes(Message::kType, encode_state(message), descriptors);
    }

    /// Waits for the next message, which must be of this type. Errors: the peer has said why it
    /// cannot (FailedMessage), says something else, is gone, or takes too long.
    template <StateStruct Message>
    Result<Message> receive(Milliseconds patience, std::vector<UniqueFd>* descriptors = nullptr) {
        IVMM_ASSIGN(const auto bytes, receive_bytes(Message::kType, patience, descriptors));
        auto message = decode_state<Message>(bytes);
        if (!message) {
            return annotate(std::move(message).error(), peer_ + " sends something unreadable");
        }
        return message;
    }

 private:
    Result<void> send_bytes(MessageType type, ConstByteSpan payload,
                            const std::vector<int>& descriptors);
    Result<std::vector<std::byte>> receive_bytes(MessageType type, Milliseconds patience,
                                                 std::vector<UniqueFd>* descriptors);
    using Deadline = std::chrono::steady_clock::time_point;
    /// Fills `out`; with `descriptors`, takes those that come with the first byte.
    Result<void> read(ByteSpan out, Deadline deadline, std::vector<UniqueFd>* descriptors);

    UniqueFd socket_;
    std::string peer_;
};

}  // namespace ivmm
