#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "devices/virtio/queue.h"

/// The rings and tables of a virtqueue, and where they lie, are the input's choice.
using namespace ivmm;
using namespace ivmm::virtio;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    constexpr uint64_t kMemory = 1 << 20;
    static auto memory = *GuestMemory::create(kMemory);
    struct Setup {
        uint16_t size;
        uint8_t features;
        uint8_t rounds;
        uint32_t descriptors;
        uint32_t available;
        uint32_t used;
    } setup{};
    if (size < sizeof setup) {
        return 0;
    }
    const auto input = std::as_bytes(std::span(data, size));
    setup = load_at<Setup>(input, 0);
    const auto image = input.subspan(sizeof setup);
    std::ignore = memory->fill(0, 0x10000, std::byte{0});
    std::ignore = memory->write(0, image.first(std::min<size_t>(image.size(), 0x10000)));

    Queue queue(*memory, 256);
    queue.state().size = setup.size;
    queue.state().descriptors = setup.descriptors;
    queue.state().available = setup.available;
    queue.state().used = setup.used;
    const uint64_t features = kFeatureVersion1 |
                              ((setup.features & 1) != 0 ? kFeatureIndirect : 0) |
                              ((setup.features & 2) != 0 ? kFeatureEventIdx : 0);
    if (!queue.enable(features)) {
        return 0;
    }
    for (unsigned round = 0; round < setup.rounds; ++round) {
        auto chain = queue.pop();
        if (!chain) {
            std::ignore = queue.enable_notifications();
            break;
        }
        if (chain->readable().size() + chain->writable().size() > setup.size) {
            std::abort();
        }
        for (const auto& part : {chain->readable(), chain->writable()}) {
            for (const Segment& segment : part) {
                if (!memory->contains(segment.address, segment.length)) {
                    std::abort();
                }
            }
        }
        Cursor in(*memory, chain->readable());
        uint64_t word = 0;
        while (in.read(word)) {
            if (in.remaining() > 4096) {
                std::ignore = in.skip(4096);
            }
        }
        Cursor out(*memory, chain->writable());
        std::ignore = out.write(word);
        if (round % 5 == 4) {
            queue.undo_pop();
            queue.disable_notifications();
            continue;
        }
        queue.push(*chain, static_cast<uint32_t>(word));
        std::ignore = queue.publish();
    }
    std::ignore = queue.check(queue.state());
    return 0;
}
