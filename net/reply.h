#pragma once

#include <vector>

#include "net/frame.h"

/// Frames that the switch makes itself, in answer to one that it has got.
namespace ivmm::net {

/// The Ethernet header with its tags, from `mac` back to the sender, and room for `length` bytes.
std::vector<std::byte> reply_to(const Headers& headers, ConstByteSpan head, const MacAddress& mac,
                                size_t length);

/// A UDP packet with this payload, back from whom `headers` (of UDP, whole and with ports) was for.
std::vector<std::byte> udp_reply(const Headers& headers, ConstByteSpan head, ConstByteSpan payload);

/// What a UDP packet carries; empty if not all of it is in the head.
ConstByteSpan udp_payload(const Headers& headers, ConstByteSpan head);

}  // namespace ivmm::net
