#include "vmm/evidence/capture_reader.h"

#include <fstream>
#include <vector>

#include "base/checked.h"

namespace ivmm::evidence {
namespace {

// draft-ietf-opsawg-pcapng.
constexpr uint32_t kSectionHeader = 0x0a0d0d0a;
constexpr uint32_t kByteOrder = 0x1a2b3c4d;
constexpr uint32_t kEnhancedPacket = 6;
constexpr uint16_t kComment = 1;
constexpr uint16_t kPacketFlags = 2;
constexpr uint32_t kInbound = 1;
constexpr size_t kFrame = 20;  // where it begins in the body of an enhanced packet
constexpr uint32_t kLeastBlock = 12;
constexpr uint32_t kMostBlock = 1U << 20;

void read_options(ConstByteSpan options, CapturedFrame& frame) {
    while (options.size() >= 4) {
        const auto code = load_at<uint16_t>(options, 0);
        const auto length = load_at<uint16_t>(options, 2);
        options = options.subspan(4);
        if (code == 0 || length > options.size()) {
            return;
        }
        if (code == kComment && frame.comment.empty()) {
            frame.comment = {reinterpret_cast<const char*>(options.data()), length};
        } else if (code == kPacketFlags && length == sizeof(uint32_t)) {
            frame.to_clone = (load_at<uint32_t>(options, 0) & 3) == kInbound;
        }
        options = options.subspan(std::min<size_t>(options.size(), align_up<size_t>(length, 4)));
    }
}

/// Of an enhanced packet.
void read_packet(ConstByteSpan body, const std::function<void(const CapturedFrame&)>& on_frame) {
    if (body.size() < kFrame) {
        return;
    }
    const auto interface = load_at<uint32_t>(body, 0);
    const auto length = load_at<uint32_t>(body, 12);
    if (interface > static_cast<uint32_t>(net::Place::kDropped) || length > body.size() - kFrame) {
        return;
    }
    CapturedFrame frame;
    frame.time_ns = uint64_t{load_at<uint32_t>(body, 4)} << 32 | load_at<uint32_t>(body, 8);
    frame.place = static_cast<net::Place>(interface);
    frame.bytes = body.subspan(kFrame, length);
    read_options(body.subspan(std::min(body.size(), kFrame + align_up<size_t>(length, 4))), frame);
    on_frame(frame);
}

}  // namespace

Result<void> read_capture(const std::string& path,
                          const std::function<void(const CapturedFrame&)>& on_frame) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        return fail("cannot read the capture '{}'", path);
    }
    std::vector<std::byte> block(8);
    for (bool first = true; file.read(reinterpret_cast<char*>(block.data()), 8); first = false) {
        const auto type = load_at<uint32_t>(block, 0);
        const auto length = load_at<uint32_t>(block, 4);
        if (length < kLeastBlock || length > kMostBlock || length % 4 != 0 ||
            (first && type != kSectionHeader)) {
            return fail("'{}' is not a capture, or damaged", path);
        }
        block.resize(length);
        if (!file.read(reinterpret_cast<char*>(block.data()) + 8, length - 8)) {
            return {};
        }
        const ConstByteSpan body = ConstByteSpan(block).subspan(8, length - kLeastBlock);
        if (type == kSectionHeader &&
            (body.size() < 4 || load_at<uint32_t>(body, 0) != kByteOrder)) {
            return fail("'{}' was written by another machine", path);
        }
        if (type == kEnhancedPacket) {
            read_packet(body, on_frame);
        }
    }
    return {};
}

}  // namespace ivmm::evidence
