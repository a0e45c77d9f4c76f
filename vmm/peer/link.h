#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/printable.h"
#include "base/result.h"
#include "base/state_codec.h"
#include "vmm/peer/messages.h"
#include "vmm/peer/packing.h"
#include "vmm/peer/tls_stream.h"

namespace ivmm::peer {

/// Before each message on the wire.
struct FrameHeader {
    MessageType type{};
    uint32_t length = 0;  ///< of the message's fields
    uint32_t tail = 0;    ///< of what follows them
};

/// Errors: no message of this type is like that.
Result<void> check_frame(const FrameHeader& header);

/// A message that has arrived, not looked into yet.
struct Frame {
    MessageType type{};
    std::vector<std::byte> fields;
    std::vector<std::byte> tail;
};

/// Its message. Errors: it is another one; it tells why the other side fails; it is damaged.
template <StateStruct Message>
Result<Message> message_in(const Frame& frame, const std::string& peer) {
    if (frame.type == MessageType::kFailed && Message::kType != MessageType::kFailed) {
        auto failed = decode_state<Failed>(frame.fields);
        return failed ? fail("{}: {}", peer, printable(failed->reason))
                      : fail("{} fails and does not say why", peer);
    }
    if (frame.type != Message::kType) {
        return fail("{} sends message {} where {} was expected", peer,
                    static_cast<uint32_t>(frame.type), static_cast<uint32_t>(Message::kType));
    }
    auto message = decode_state<Message>(frame.fields);
    if (!message) {
        return annotate(std::move(message).error(), peer + " sends something unreadable");
    }
    return message;
}

/// Messages over a connection to another host. One thread at a time.
class Link {
 public:
    using Milliseconds = TlsStream::Milliseconds;

    explicit Link(std::unique_ptr<TlsStream> stream) : stream_(std::move(stream)) {}

    TlsStream& stream() { return *stream_; }
    const std::string& name() const { return stream_->name(); }

    /// `tail`: at most kMaxPacked.
    template <StateStruct Message>
    Result<void> send(const Message& message, ConstByteSpan tail = {}) {
        return send_frame(Message::kType, encode_state(message), tail);
    }
    /// Waits for the next message.
    Result<Frame> receive_frame(Milliseconds patience);
    template <StateStruct Message>
    Result<Message> receive(Milliseconds patience) {
        IVMM_ASSIGN(const auto frame, receive_frame(patience));
        return message_in<Message>(frame, name());
    }
    Result<bool> wait_readable(Milliseconds patience) { return stream_->wait_readable(patience); }

 private:
    Result<void> send_frame(MessageType type, ConstByteSpan fields, ConstByteSpan tail);

    std::unique_ptr<TlsStream> stream_;
};

}  // namespace ivmm::peer
