#include "vmm/peer/link.h"

namespace ivmm::peer {
namespace {

/// A configuration, names, paths.
constexpr uint32_t kMaxFields = uint32_t{256} << 10;
/// The state of a machine with all its devices.
constexpr uint32_t kMaxState = uint32_t{16} << 20;

uint32_t max_fields(MessageType type) {
    return type == MessageType::kStart ? kMaxState : kMaxFields;
}

uint32_t max_tail(MessageType type) {
    return type == MessageType::kPages || type == MessageType::kDiskData ? kMaxPacked : 0;
}

}  // namespace

Result<void> check_frame(const FrameHeader& header) {
    if (header.type < MessageType::kHello || header.type > MessageType::kFailed) {
        return fail("there is no message {}", static_cast<uint32_t>(header.type));
    }
    if (header.length > max_fields(header.type) || header.tail > max_tail(header.type)) {
        return fail("message {} cannot have {} and {} bytes", static_cast<uint32_t>(header.type),
                    header.length, header.tail);
    }
    return {};
}

Result<void> Link::send_frame(MessageType type, ConstByteSpan fields, ConstByteSpan tail) {
    const FrameHeader header{type, static_cast<uint32_t>(fields.size()),
                             static_cast<uint32_t>(tail.size())};
    if (auto checked = check_frame(header); !checked) {
        return annotate(std::move(checked).error(), "cannot send to " + name());
    }
    std::vector<std::byte> bytes;
    bytes.reserve(sizeof header + fields.size() + tail.size());
    for (const ConstByteSpan part : {bytes_of(header), fields, tail}) {
        bytes.insert(bytes.end(), part.begin(), part.end());
    }
    return stream_->write(bytes);
}

Result<Frame> Link::receive_frame(Milliseconds patience) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    FrameHeader header;
    IVMM_TRY(stream_->read(writable_bytes_of(header), deadline));
    if (auto checked = check_frame(header); !checked) {
        return annotate(std::move(checked).error(), name() + " sends something unreadable");
    }
    Frame frame{header.type, std::vector<std::byte>(header.length),
                std::vector<std::byte>(header.tail)};
    // Who has begun a message has to go on with it, as slow as the link may be.
    const auto end =
        std::max(deadline, std::chrono::steady_clock::now() + TlsStream::Milliseconds(60'000));
    IVMM_TRY(stream_->read(frame.fields, end));
    IVMM_TRY(stream_->read(frame.tail, end));
    return frame;
}

}  // namespace ivmm::peer
