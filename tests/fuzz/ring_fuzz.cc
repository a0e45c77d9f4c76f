// A peer that writes whatever it likes into the memory of a cable, between any two steps of the
// switch: nothing outside of the rings is touched, a frame's head stays as it was read, and a peer
// that has broken the rules gets nothing more.

#include <sanitizer/asan_interface.h>

#include <cstdlib>

#include "net/ring_port.h"
#include "tests/fuzz/input.h"

namespace ivmm::net {
namespace {

constexpr int kMaxSteps = 256;
constexpr size_t kRecordHeader = 16;  // length, virtio-net header

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

using fuzz::Input;

class Bed {
 public:
    explicit Bed(Input input)
        : input_(input),
          event_(*EventFd::create()),
          file_(*SharedMemory::create()),
          peers_(*SharedMemory::map(file_)),
          port_(map(), event_) {}
    ~Bed() {
        for (std::byte* const ring : {to_switch_, from_switch_}) {
            ASAN_UNPOISON_MEMORY_REGION(ring, kRingStateBytes);
        }
    }

    void run() {
        for (int steps = 0; steps < kMaxSteps && !input_.rest.empty(); ++steps) {
            const auto step = input_.next<uint8_t>();
            switch (step % 8) {
                case 0:
                    scribble(step);
                    break;
                case 1:
                    set_word(step);
                    break;
                case 2:
                    put_frame(step, input_.next<uint16_t>());
                    break;
                case 3:
                case 4:
                    receive(step);
                    break;
                case 5:
                    send(input_.next<uint16_t>() * size_t{2});
                    break;
                case 6:
                    port_.flush();
                    break;
                default:
                    take();
            }
        }
        port_.flush();
        static_cast<void>(port_.sleep());
    }

 private:
    /// The switch's own mapping: its bytes that belong to nothing are not to be touched.
    SharedMemory map() {
        auto memory = *SharedMemory::map(file_);
        to_switch_ = memory.to_switch();
        from_switch_ = memory.from_switch();
        for (std::byte* const ring : {to_switch_, from_switch_}) {
            ASAN_POISON_MEMORY_REGION(ring + sizeof(RingState),
                                      kRingStateBytes - sizeof(RingState));
        }
        return memory;
    }

    RingState& state(uint8_t step) {
        return *reinterpret_cast<RingState*>((step & 0x80U) != 0 ? peers_.to_switch()
                                                                 : peers_.from_switch());
    }

    /// Near what is there, or anything at all.
    void set_word(uint8_t step) {
        RingState& all = state(step);
        const std::array<std::atomic<uint32_t>*, 4> words{
            &all.produced, &all.consumed, &all.consumer_sleeps, &all.producer_sleeps};
        std::atomic<uint32_t>& word = *words[(step >> 3U) % 4];
        if ((step & 0x40U) != 0) {
            word = input_.next<uint32_t>();
        } else {
            word += static_cast<uint32_t>(input_.next<int16_t>() * 16);
        }
    }

    void scribble(uint8_t step) {
        std::byte* const ring = (step & 0x80U) != 0 ? peers_.to_switch() : peers_.from_switch();
        const auto bytes = input_.next(step >> 3U & 0xfU);
        const size_t place = input_.next<uint32_t>() % (kRingBytes - bytes.size());
        std::copy(bytes.begin(), bytes.end(), ring + kRingStateBytes + place);
    }

    /// As an honest peer would, but for a length of its choice.
    void put_frame(uint8_t step, size_t length) {
        const uint32_t offset = put_ % kRingBytes;
        uint32_t told = static_cast<uint32_t>(length);
        if (offset + kRecordHeader + length > kRingBytes) {
            told = UINT32_MAX;
            length = kRingBytes - offset - kRecordHeader;
        } else if ((step & 0x80U) != 0) {
            told = input_.next<uint32_t>();
        }
        std::byte* const place = peers_.to_switch() + kRingStateBytes + offset;
        std::memcpy(place, &told, sizeof(told));
        std::memset(place + kRecordHeader, step, std::min<size_t>(length, 64));
        put_ += static_cast<uint32_t>((kRecordHeader + length + 15) / 16 * 16);
        if ((step & 0x40U) == 0) {
            reinterpret_cast<RingState*>(peers_.to_switch())->produced = put_;
        }
    }

    void receive(uint8_t step) {
        const bool was_broken = port_.broken();
        std::array<Frame, 64> frames;
        const size_t count = port_.receive(std::span(frames).first(step % frames.size() + 1));
        require(count <= step % frames.size() + 1 && (!in_broken_ || count == 0));
        in_broken_ = in_broken_ || (!was_broken && port_.broken());
        const std::byte* const first = to_switch_ + kRingStateBytes;
        std::vector<std::vector<std::byte>> heads;
        for (const Frame& frame : std::span(frames).first(count)) {
            require(frame.size() <= kMaxFrameLength && frame.head.size() <= kHeadLength);
            require(frame.tail.empty() ||
                    (frame.tail.data() >= first &&
                     frame.tail.data() + frame.tail.size() <= first + kRingBytes));
            heads.emplace_back(frame.head.begin(), frame.head.end());
        }
        // The peer changes all of it now; what has been read counts.
        scribble(step);
        put_frame(step, kMaxFrameLength - step);
        for (size_t i = 0; i < count; ++i) {
            require(std::equal(heads[i].begin(), heads[i].end(), frames[i].head.begin()));
            static_cast<void>(port_.send(frames[i]));
        }
    }

    void send(size_t length) {
        std::vector<std::byte> bytes(length);
        const ByteSpan all(bytes);
        const size_t head = std::min(length, kHeadLength);
        const bool sent = port_.send({{}, all.first(head), all.subspan(head)});
        require(!sent || length <= kMaxFrameLength);
    }

    /// The peer makes room as an honest one would.
    void take() {
        auto& state = *reinterpret_cast<RingState*>(peers_.from_switch());
        state.consumed = state.produced.load();
    }

    Input input_;
    EventFd event_;
    UniqueFd file_;
    SharedMemory peers_;              // the peer's mapping
    std::byte* to_switch_ = nullptr;  // the switch's
    std::byte* from_switch_ = nullptr;
    uint32_t put_ = 0;
    bool in_broken_ = false;
    RingPort port_;
};

}  // namespace
}  // namespace ivmm::net

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    ivmm::net::Bed({std::as_bytes(std::span(data, size))}).run();
    return 0;
}
