// What the headers of a frame may say: parsing stays within the bytes, and what it tells of lies
// within the frame.

#include <cstdlib>
#include <vector>

#include "net/headers.h"

namespace ivmm::net {
namespace {

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

void run(ConstByteSpan input) {
    // A heap copy of just this size, so that one byte too many is noticed.
    const std::vector<std::byte> bytes(input.begin(), input.end());
    const Headers headers = parse_headers(bytes, bytes.size());
    if (headers.kind == Headers::Kind::kMalformed) {
        return;
    }
    require(headers.network_offset <= bytes.size());
    if (headers.is_ip()) {
        require(headers.packet_end <= bytes.size());
        require(headers.transport_offset <= headers.packet_end);
        require(headers.payload_offset <= headers.packet_end);
        require((headers.fragment == Headers::Fragment::kLater) == (headers.transport_offset == 0));
        require(headers.tuple.source.is_v4() == headers.tuple.destination.is_v4() ||
                headers.ether_type == 0x86dd);
    }
    // A shorter head never tells of anything beyond it.
    for (size_t length = 0; length < bytes.size() && length < 128; length += 7) {
        const std::vector<std::byte> head(bytes.begin(),
                                          bytes.begin() + static_cast<std::ptrdiff_t>(length));
        const Headers cut = parse_headers(head, bytes.size());
        require(cut.payload_offset <= length || cut.kind == Headers::Kind::kMalformed);
    }
}

}  // namespace
}  // namespace ivmm::net

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    ivmm::net::run(std::as_bytes(std::span(data, size)));
    return 0;
}
