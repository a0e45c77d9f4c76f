#pragma once

#include <linux/virtio_blk.h>
#include <atomic>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/log.h"
#include "base/state_codec.h"
#include "devices/blk/block_backend.h"
#include "devices/virtio/device.h"

namespace ivmm::virtio {

/// virtio-blk (virtio 1.2, 5.2) with one or more queues over one BlockBackend.
class VirtioBlk final : public Device {
 public:
    static constexpr uint16_t kMaxQueues = 8;
    static constexpr uint16_t kQueueSize = 256;
    /// The most data in one request; greater ones fail. Bounds what a freeze has to wait for.
    static constexpr uint64_t kMaxRequestBytes = uint64_t{8} << 20;
    /// The most that one DISCARD or WRITE_ZEROES takes.
    static constexpr uint32_t kMaxUnmapSectors = 65536;

    /// What there is to save besides the queues: nothing, as no request is in flight. It says
    /// which disk the guest believes in.
    struct State {
        static constexpr uint32_t kVersion = 1;
        uint64_t sectors = 0;
        bool read_only = false;

        bool operator==(const State&) const = default;
        template <class Visitor, class Self>
        static void fields(Visitor& visit, Self& self) {
            visit(self.sectors, self.read_only);
        }
    };

    /// `serial`: what GET_ID answers; cut to 20 bytes. `queues`: 1 to kMaxQueues. `loop` and
    /// `memory` must outlive the device; it is destroyed on the loop's thread, or while no thread
    /// runs the loop.
    static Result<std::unique_ptr<VirtioBlk>> create(EventLoop& loop, GuestMemory& memory,
                                                     std::unique_ptr<BlockBackend> backend,
                                                     std::string serial, uint16_t queues);
    ~VirtioBlk() override;

    uint32_t device_id() const override;
    uint64_t offered_features() const override;
    std::span<const uint16_t> queue_sizes() const override { return queue_sizes_; }
    void read_config(uint64_t offset, ByteSpan out) const override;
    void activate(const Activation& activation) override;
    void kick(uint16_t queue) override;
    void reset() override;

    std::string state_id() const override { return "virtio-blk"; }
    /// What the guest has had written, without zeroes that it only named. Any thread.
    uint64_t written_bytes() const { return written_bytes_; }

    void freeze() override;
    void thaw() override;
    std::vector<std::byte> save_state() const override;
    Result<void> restore_state(ConstByteSpan bytes) override;

 private:
    /// A request that the backend works on.
    struct InFlight {
        std::optional<Chain> chain;
        uint16_t queue = 0;
        BlockBackend::Operation operation{};
        uint64_t offset = 0;
        uint64_t length = 0;
    };

    VirtioBlk(GuestMemory& memory, std::unique_ptr<BlockBackend> backend, std::string serial,
              uint16_t queues);

    void process(uint16_t queue);
    /// Answers a request, or hands it to the backend.
    void handle(uint16_t queue, Chain chain);
    void get_id(uint16_t queue, const Chain& chain);
    void transfer(uint16_t queue, Chain chain, bool write, uint64_t sector);
    void unmap(uint16_t queue, Chain chain, Cursor request, bool write_zeroes);
    void submit(uint16_t queue, Chain chain, BlockBackend::Request request);
    /// Writes the status and gives the chain back; `data`: bytes written in front of the status.
    void answer(uint16_t queue, const Chain& chain, uint8_t status, uint64_t data = 0);

    void on_completions();
    void finish(const std::vector<BlockBackend::Completion>& completions);
    void drain();
    bool in_disk(uint64_t sector, uint64_t bytes) const;
    bool has_room() const { return !free_.empty(); }

    GuestMemory& memory_;
    const std::unique_ptr<BlockBackend> backend_;
    const std::string serial_;
    const std::vector<uint16_t> queue_sizes_;
    const uint64_t sectors_;
    virtio_blk_config config_{};
    log::Throttle throttle_;
    std::atomic<uint64_t> written_bytes_ = 0;

    std::optional<Activation> activation_;
    bool frozen_ = false;
    std::vector<InFlight> slots_;
    std::vector<size_t> free_;        // indices of slots_
    std::vector<bool> out_of_slots_;  // by queue: it has requests that wait for a slot
    size_t next_waiting_ = 0;         // the queue that gets free slots first
    EventLoop::Watch watch_;
};

}  // namespace ivmm::virtio
