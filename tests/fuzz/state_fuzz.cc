#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "devices/interrupt_line.h"
#include "devices/rng/virtio_rng.h"
#include "devices/virtio/mmio_transport.h"

/// A saved transport and device state of the input's choice: refused, or taken over and run. The
/// first byte of the input says what the rest is: the state itself, or changes to a good one.
using namespace ivmm;
using namespace ivmm::virtio;

namespace {

class NoInterrupt final : public InterruptLine {
 public:
    void trigger() noexcept override {}
};

/// Of a device in use.
TransportState good_state() {
    TransportState state;
    state.device_id = 4;
    state.status = 15;
    state.interrupt_status = 1;
    state.driver_features = kFeatureVersion1 | kFeatureEventIdx | kFeatureIndirect;
    state.queues.push_back({64, true, 0x1000, 0x2000, 0x3000, 5, 5});
    state.device = encode_state(VirtioRng::State{});
    return state;
}

std::vector<std::byte> state_from(ConstByteSpan input) {
    if (input.empty() || (input.front() & std::byte{1}) == std::byte{0}) {
        return {input.begin() + (input.empty() ? 0 : 1), input.end()};
    }
    auto state = encode_state(good_state());
    for (auto rest = input.subspan(1); rest.size() >= 2; rest = rest.subspan(2)) {
        const auto at = static_cast<size_t>(rest[0]);
        if (at < state.size()) {
            state[at] = rest[1];
        }
    }
    return state;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    log::set_level(log::Level::kError);
    static auto memory = *GuestMemory::create(1 << 20);
    static auto loop = *EventLoop::create();
    static NoInterrupt interrupt;
    static auto transport = *MmioTransport::create("fuzz0", *loop, *memory, interrupt,
                                                   std::make_unique<VirtioRng>(*memory));
    const auto input = state_from(std::as_bytes(std::span(data, size)));

    // The format: what is accepted must be encoded as the same bytes again.
    if (const auto state = decode_state<TransportState>(input)) {
        const auto again = encode_state(*state);
        if (!std::equal(again.begin(), again.end(), input.begin(), input.end())) {
            std::abort();
        }
    }
    // What the state's queue may find in memory.
    for (Gpa at = 0x1000; at < 0x4000 && size > 0; at += size) {
        std::ignore = memory->write(at, std::as_bytes(std::span(data, size)));
    }
    // The values.
    transport->freeze();
    const auto before = transport->save_state();
    if (transport->restore_state(input)) {
        const auto after = transport->save_state();
        if (!std::equal(after.begin(), after.end(), input.begin(), input.end())) {
            std::abort();
        }
    } else if (transport->save_state() != before) {
        std::abort();
    }
    transport->thaw();
    loop->post([] { loop->stop(); });
    loop->run();
    // Back to the start, for inputs that do not depend on each other.
    const uint32_t reset = 0;
    transport->bus_write(0x070, bytes_of(reset));
    std::ignore = memory->fill(0, 1 << 20, std::byte{0});
    return 0;
}
