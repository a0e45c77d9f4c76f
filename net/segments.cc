#include "net/segments.h"

#include <algorithm>
#include <vector>

#include "net/wire.h"

namespace ivmm::net {
namespace {

void fill_checksum(ByteSpan bytes, size_t start, size_t field) {
    // The field holds the sum of the pseudo-header already.
    Checksum sum;
    sum.add(bytes.subspan(start));
    const uint16_t value = sum.value();
    store_be16(bytes, field, value == 0 ? uint16_t{0xffff} : value);
}

/// The checksum field's sum of the pseudo-header, of a segment of this length.
uint16_t pseudo_header(const Tuple& tuple, size_t length) {
    Checksum sum;
    const size_t first = tuple.source.is_v4() ? 12 : 0;
    sum.add(std::as_bytes(std::span(tuple.source.bytes)).subspan(first));
    sum.add(std::as_bytes(std::span(tuple.destination.bytes)).subspan(first));
    sum.add_be16(tuple.protocol);
    sum.add_be16(static_cast<uint16_t>(length));
    return sum.folded();
}

void hand_out(std::vector<std::byte>& bytes, const std::function<bool(const Frame&)>& send,
              bool* going) {
    const ByteSpan all(bytes);
    const size_t head = std::min(all.size(), kHeadLength);
    *going = send({VnetHeader{}, all.first(head), all.subspan(head)});
}

}  // namespace

bool takes(const Offloads& able, const VnetHeader& vnet) {
    if ((vnet.flags & VnetHeader::kNeedsChecksum) != 0 && !able.checksum) {
        return false;
    }
    if (vnet.gso_type == VnetHeader::kGsoNone) {
        return true;
    }
    const bool v4 =
        (vnet.gso_type & static_cast<uint8_t>(~VnetHeader::kGsoEcn)) == VnetHeader::kGsoTcpV4;
    return (v4 ? able.tso4 : able.tso6) &&
           (able.tso_ecn || (vnet.gso_type & VnetHeader::kGsoEcn) == 0);
}

void complete(const Frame& frame, const Headers& headers,
              const std::function<bool(const Frame&)>& send) {
    std::vector<std::byte> whole(frame.head.begin(), frame.head.end());
    whole.insert(whole.end(), frame.tail.begin(), frame.tail.end());
    whole.resize(std::max<size_t>(headers.packet_end, headers.payload_offset));
    const size_t start = frame.vnet.checksum_start;
    const size_t field = start + frame.vnet.checksum_offset;
    bool going = true;
    if (frame.vnet.gso_type == VnetHeader::kGsoNone) {
        fill_checksum(whole, start, field);
        hand_out(whole, send, &going);
        return;
    }
    const size_t payload = headers.payload_offset;
    const size_t length = whole.size() - payload;
    const uint32_t sequence = load_be32(whole, start + 4);
    const uint8_t flags = load8(whole, start + 13);
    const bool v4 = headers.tuple.source.is_v4();
    const auto id = v4 ? load_be16(whole, headers.network_offset + size_t{4}) : uint16_t{0};
    for (size_t done = 0; going && (done < length || done == 0); done += frame.vnet.gso_size) {
        const size_t part = std::min<size_t>(frame.vnet.gso_size, length - done);
        const bool last = done + part >= length;
        std::vector<std::byte> piece(whole.begin(),
                                     whole.begin() + static_cast<std::ptrdiff_t>(payload));
        const auto from = whole.begin() + static_cast<std::ptrdiff_t>(payload + done);
        piece.insert(piece.end(), from, from + static_cast<std::ptrdiff_t>(part));
        const ByteSpan ip = ByteSpan(piece).subspan(headers.network_offset);
        if (v4) {
            store_be16(ip, 2, static_cast<uint16_t>(ip.size()));
            store_be16(ip, 4, static_cast<uint16_t>(id + done / frame.vnet.gso_size));
            store_be16(ip, 10, 0);
            Checksum sum;
            sum.add(ip.first((load8(ip, 0) & 0xfU) * size_t{4}));
            store_be16(ip, 10, sum.value());
        } else {
            store_be16(ip, 4, static_cast<uint16_t>(ip.size() - 40));
        }
        store_be32(piece, start + 4, static_cast<uint32_t>(sequence + done));
        uint8_t own_flags = flags;
        if (!last) {
            own_flags &= static_cast<uint8_t>(~(kTcpFin | 0x08U));
        }
        if (done > 0) {
            own_flags &= static_cast<uint8_t>(~0x80U);  // CWR is for the first
        }
        store8(piece, start + 13, own_flags);
        store_be16(piece, field, pseudo_header(headers.tuple, piece.size() - start));
        fill_checksum(piece, start, field);
        hand_out(piece, send, &going);
    }
}

}  // namespace ivmm::net
