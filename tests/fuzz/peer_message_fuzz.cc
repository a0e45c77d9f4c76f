#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "vmm/peer/link.h"
#include "vmm/peer/page_receiver.h"

/// What another host sends, of the input's choice: refused, or what it says is what is encoded
/// again. The first bytes are the frame's header, the rest its fields and its tail.
using namespace ivmm;
using namespace ivmm::peer;

namespace {

template <StateStruct Message>
void check(const Frame& frame) {
    const auto message = message_in<Message>(frame, "the other host");
    if (message && encode_state(*message) != frame.fields) {
        std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    auto input = std::as_bytes(std::span(data, size));
    FrameHeader header;
    if (input.size() < sizeof header) {
        return 0;
    }
    header = load_at<FrameHeader>(input, 0);
    input = input.subspan(sizeof header);
    if (!check_frame(header)) {
        return 0;
    }
    Frame frame;
    frame.type = header.type;
    const auto fields = input.first(std::min<size_t>(header.length, input.size()));
    frame.fields.assign(fields.begin(), fields.end());
    const auto rest = input.subspan(fields.size());
    const auto tail = rest.first(std::min<size_t>(header.tail, rest.size()));
    frame.tail.assign(tail.begin(), tail.end());

    check<Hello>(frame);
    check<Welcome>(frame);
    check<Ready>(frame);
    check<Applied>(frame);
    check<Prepare>(frame);
    check<Prepared>(frame);
    check<Disks>(frame);
    check<Wanted>(frame);
    check<DiskData>(frame);
    check<Start>(frame);
    check<Running>(frame);
    check<Adopted>(frame);
    check<Pages>(frame);
    constexpr uint64_t kMemoryPages = 4096;
    if (const auto pages = message_in<Pages>(frame, "the other host")) {
        if (const auto content = content_of(*pages, frame.tail, kMemoryPages)) {
            std::vector<std::byte> again(content->size());
            if (!unpack(pack(*content), again) || again != *content) {
                std::abort();
            }
        }
    }
    return 0;
}
