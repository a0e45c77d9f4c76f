#include "vmm/watch/payload_tap.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "net/headers.h"

namespace ivmm::watch {
namespace {

/// So that nobody who sends fast keeps the loop from all else.
constexpr int kMostFramesAtOnce = 256;
constexpr int kBuffer = 4 << 20;

}  // namespace

std::optional<Alert> find_payload(ConstByteSpan frame, std::span<const std::string> payloads,
                                  std::span<const net::Prefix> home) {
    const auto headers = net::parse_headers(frame, frame.size());
    const size_t end = std::min<size_t>(headers.packet_end, frame.size());
    if ((!headers.is_tcp() && !headers.is_udp()) || headers.no_ports ||
        headers.payload_offset == 0 || headers.payload_offset >= end ||
        !net::any_contains(home, headers.tuple.destination)) {
        return std::nullopt;
    }
    const auto payload = frame.subspan(headers.payload_offset, end - headers.payload_offset);
    const auto found = std::ranges::find_if(payloads, [&](const std::string& text) {
        return ::memmem(payload.data(), payload.size(), text.data(), text.size()) != nullptr;
    });
    if (found == payloads.end()) {
        return std::nullopt;
    }
    Alert alert;
    alert.source = "payload";
    alert.attacker = {headers.tuple.source, headers.tuple.source_port};
    alert.victim = {headers.tuple.destination, headers.tuple.destination_port};
    alert.signature = *found;
    alert.category = "ivmm detector";
    alert.severity = 1;
    return alert;
}

Result<std::unique_ptr<PayloadTap>> PayloadTap::open(EventLoop& loop, const std::string& interface,
                                                     Take take) {
    // No frames before it is known of which interface.
    UniqueFd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket) {
        return fail_errno("cannot look at packets (that needs root)");
    }
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
    if (address.sll_ifindex == 0) {
        return fail_errno("there is no interface '{}'", interface);
    }
    ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUF, &kBuffer, sizeof kBuffer);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return fail_errno("cannot look at the packets of '{}'", interface);
    }
    std::unique_ptr<PayloadTap> made(new PayloadTap(std::move(socket), std::move(take)));
    made->frame_.resize(net::kMaxFrameLength);
    IVMM_ASSIGN(made->watch_, loop.watch(made->socket_.get(), EPOLLIN,
                                         [self = made.get()](uint32_t) { self->drain(); }));
    return made;
}

void PayloadTap::drain() {
    for (int i = 0; i < kMostFramesAtOnce; ++i) {
        const ssize_t n = ::recv(socket_.get(), frame_.data(), frame_.size(), 0);
        if (n < 0) {
            return;  // there is nothing more
        }
        take_({frame_.data(), static_cast<size_t>(n)});
    }
}

}  // namespace ivmm::watch
