#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/checked.h"
#include "devices/blk/virtio_blk.h"
#include "devices/virtio/ring.h"

/// The input is a list of requests: their type, range, buffers and payload.
using namespace ivmm;
using namespace ivmm::virtio;

namespace {

constexpr uint64_t kMemory = 2 << 20;
constexpr uint64_t kDiskBytes = 256 << 10;

/// A disk in memory that checks what it is asked for.
class MemoryDisk final : public BlockBackend {
 public:
    std::string_view name() const override { return "memory"; }
    uint64_t size() const override { return kDiskBytes; }
    bool read_only() const override { return false; }
    bool can_discard() const override { return true; }
    bool can_write_zeroes() const override { return true; }
    size_t capacity() const override { return 4; }
    void submit(Request request) override {
        const bool transfers =
            request.operation == Operation::kRead || request.operation == Operation::kWrite;
        if (!range_within(request.offset, request.length, kDiskBytes) ||
            completions_.size() >= capacity()) {
            std::abort();
        }
        uint64_t total = 0;
        for (const iovec& buffer : request.buffers) {
            std::byte* at = content_.data() + request.offset + total;
            total += buffer.iov_len;
            if (total > request.length) {
                std::abort();
            }
            if (request.operation == Operation::kRead) {
                std::memcpy(buffer.iov_base, at, buffer.iov_len);
            } else {
                std::memcpy(at, buffer.iov_base, buffer.iov_len);
            }
        }
        if (transfers && total != request.length) {
            std::abort();
        }
        completions_.push_back({request.token, request.offset % 7 == 6 ? EIO : 0});
    }
    void commit() override {}
    int completion_fd() const override { return event_.fd(); }
    void poll(std::vector<Completion>& out) override {
        out.insert(out.end(), completions_.begin(), completions_.end());
        completions_.clear();
    }
    void wait(std::vector<Completion>& out) override { poll(out); }

 private:
    std::vector<std::byte> content_ = std::vector<std::byte>(kDiskBytes);
    std::vector<Completion> completions_;
    EventFd event_ = *EventFd::create();
};

class Port final : public DriverPort {
 public:
    explicit Port(Queue& queue) : queue_(queue) {}
    void publish(uint16_t /*queue*/) override { std::ignore = queue_.publish(); }
    void kick_later(uint16_t /*queue*/) override { again = true; }
    void config_changed() override {}
    void fail(std::string_view reason) override { queue_.break_queue(reason); }
    bool again = false;

 private:
    Queue& queue_;
};

constexpr Gpa kDescriptors = 0x1000;
constexpr Gpa kAvailable = 0x3000;
constexpr Gpa kUsed = 0x4000;
constexpr Gpa kHeaders = 0x6000;
constexpr Gpa kBuffers = 0x100000;
constexpr uint16_t kSize = 64;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    log::set_level(log::Level::kError);
    static auto memory = *GuestMemory::create(kMemory);
    static auto loop = *EventLoop::create();
    static auto device =
        *VirtioBlk::create(*loop, *memory, std::make_unique<MemoryDisk>(), "fuzz", 1);

    std::ignore = memory->fill(kDescriptors, kHeaders - kDescriptors, std::byte{0});
    std::vector<Queue> queues;
    queues.emplace_back(*memory, VirtioBlk::kQueueSize);
    Port port(queues[0]);
    queues[0].state() = {kSize, false, kDescriptors, kAvailable, kUsed, 0, 0};
    if (!queues[0].enable(kFeatureVersion1)) {
        std::abort();
    }

    struct Item {
        uint8_t type;
        uint8_t shape;  // what buffers the request has
        uint16_t length;
        uint64_t sector;
        uint32_t range_sectors;
        uint8_t range_flags;
    } __attribute__((packed));
    auto input = std::as_bytes(std::span(data, size));
    uint16_t descriptor = 0;
    uint16_t requests = 0;
    while (input.size() >= sizeof(Item) && descriptor + 4 <= kSize) {
        const auto item = load_at<Item>(input, 0);
        input = input.subspan(sizeof(Item));
        const Gpa header_at = kHeaders + 0x100 * uint64_t{requests};
        const virtio_blk_outhdr header{item.type, 0, item.sector};
        const virtio_blk_discard_write_zeroes range{item.sector, item.range_sectors,
                                                    item.range_flags};
        std::ignore = memory->write(header_at, header);
        std::ignore = memory->write(header_at + 0x40, range);
        const uint16_t head = descriptor;
        const auto add = [&](Gpa at, uint32_t length, uint16_t flags) {
            std::ignore =
                memory->write(kDescriptors + 16 * uint64_t{descriptor},
                              Descriptor{at, length, static_cast<uint16_t>(flags | kDescriptorNext),
                                         static_cast<uint16_t>(descriptor + 1)});
            ++descriptor;
        };
        const uint32_t length = (item.shape & 0x40) != 0 ? item.length : item.length & ~0x1ffU;
        add(header_at, (item.shape & 1) != 0 ? 16 : item.length % 20, 0);
        if ((item.shape & 2) != 0) {
            add(header_at + 0x40, 16, 0);
        }
        if ((item.shape & 4) != 0) {
            add(kBuffers, length, (item.shape & 8) != 0 ? kDescriptorWrite : uint16_t{0});
        }
        if ((item.shape & 16) != 0) {
            add(header_at + 0x80, (item.shape & 32) != 0 ? 1 : item.length % 30, kDescriptorWrite);
        }
        const Gpa last = kDescriptors + 16 * uint64_t{descriptor} - 4;
        const auto flags = memory->read<uint16_t>(last).value_or(0);
        std::ignore = memory->write(last, static_cast<uint16_t>(flags & ~kDescriptorNext));
        std::ignore = memory->write(kAvailable + kRingEntries + 2 * uint64_t{requests}, head);
        ++requests;
    }
    std::ignore = memory->store_release(kAvailable + kRingIndex, requests);

    device->activate(
        {kFeatureVersion1 | (size % 2 == 0 ? device->offered_features() : 0), queues, &port});
    for (int round = 0; round < 4 * kSize; ++round) {
        device->kick(0);
        device->freeze();  // waits for all that is in flight
        device->thaw();
    }
    // Every request must have come back, unless the rings themselves were broken.
    if (!queues[0].broken() && queues[0].state().next_used != requests) {
        std::abort();
    }
    device->reset();
    return 0;
}
