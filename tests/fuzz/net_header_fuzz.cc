// What a guest may put into virtio-net's transmit and control queue. The input: features, then
// requests (queue, length, bytes). Whatever is in them, only frames whose header tells the truth
// reach the backend.

#include <cstdlib>

#include "devices/net/virtio_net.h"
#include "tests/fuzz/input.h"
#include "tests/support/fake_driver.h"

namespace ivmm::virtio {
namespace {

constexpr uint64_t kMemory = uint64_t{1} << 20;

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

/// Takes frames and checks what their headers say.
class StrictBackend final : public NetBackend {
 public:
    void set_callbacks(Callback /*on_receivable*/, Callback /*on_sendable*/) override {}
    void want_receive(bool /*want*/) override {}
    void want_send(bool /*want*/) override {}
    Sent send(std::span<const Frame> frames) override {
        for (const Frame& frame : frames) {
            check(frame);
        }
        return {.taken = frames.size()};
    }
    std::optional<size_t> receive(std::span<const iovec> buffer) override {
        // The same frame for ever: a header that asks for much, and nothing.
        std::memset(buffer[0].iov_base, 1, 3000);
        return ++received % 4 == 0 ? std::nullopt : std::optional<size_t>(3000);
    }
    Result<void> set_offloads(const NetOffloads& offloads) override {
        require(offloads.checksum || (!offloads.tso4 && !offloads.tso6 && !offloads.tso_ecn));
        return {};
    }

 private:
    static void check(const Frame& frame) {
        NetHeader header{};
        require(frame[0].iov_len == sizeof(header));
        std::memcpy(&header, frame[0].iov_base, sizeof(header));
        uint64_t length = 0;
        for (const iovec& piece : frame.subspan(1)) {
            length += piece.iov_len;
        }
        require(length >= 14 && length <= kMaxFrameLength && header.num_buffers == 0);
        require(header.hdr_len <= length);
        require((header.flags & ~VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0);
        if (header.flags != 0) {
            require(uint64_t{header.csum_start} + header.csum_offset + 2 <= length);
        }
        if (header.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
            require(header.flags != 0 && header.gso_size >= kMinSegmentLength);
            require(header.csum_start + 20U <= length);
        }
    }
    unsigned received = 0;
};

using fuzz::Input;

void run(Input input) {
    const auto loop = *EventLoop::create();
    const auto memory = *GuestMemory::create(kMemory);
    const auto net =
        *VirtioNet::create(*loop, *memory, std::make_unique<StrictBackend>(), {2, 0, 0, 0, 0, 1});
    test::Arena arena(*memory, 0x1000, kMemory - 0x1000);
    test::FakeDevicePort port(*memory, arena, *net);
    port.activate((input.next<uint64_t>() & net->offered_features()) | kFeatureVersion1 |
                  kFeatureIndirect);
    for (int requests = 0; requests < 32 && !input.rest.empty(); ++requests) {
        const auto choice = input.next<uint8_t>();
        const auto index = static_cast<uint16_t>(choice % 3);
        auto& queue = port.queue(index);
        if (index == VirtioNet::kReceiveQueue) {
            queue.chain().writable(input.next<uint8_t>() * 16U + 1).send();
        } else {
            const auto bytes = input.next(input.next<uint8_t>());
            auto chain = queue.chain();
            chain.readable(bytes);
            if ((choice & 0x80U) != 0) {
                chain.readable_at(0, input.next<uint16_t>() * 2U);
            }
            if (index == VirtioNet::kControlQueue) {
                chain.writable(1);
            }
            chain.send();
        }
        port.kick(index);
        while (queue.take_used()) {
        }
    }
    require(port.failure().empty());
    net->freeze();
    const auto state = net->save_state();
    require(net->restore_state(state).has_value() && net->save_state() == state);
}

}  // namespace
}  // namespace ivmm::virtio

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    ivmm::virtio::run({std::as_bytes(std::span(data, size))});
    return 0;
}
