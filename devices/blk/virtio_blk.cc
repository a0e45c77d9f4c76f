#include "devices/blk/virtio_blk.h"

#include <linux/virtio_ids.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <tuple>

#include "base/checked.h"

namespace ivmm::virtio {
namespace {

constexpr uint64_t kSector = 512;
/// Requests that one call takes from a queue before the loop's other users have their turn.
constexpr uint32_t kRequestsPerRound = 64;
/// With header and status, a chain as long as the queue.
constexpr uint32_t kSegmentsMax = VirtioBlk::kQueueSize - 2;
constexpr uint32_t kSegmentSizeMax = 32 << 10;
static_assert(uint64_t{kSegmentsMax} * kSegmentSizeMax <= VirtioBlk::kMaxRequestBytes);

constexpr uint64_t bit(unsigned feature) {
    return uint64_t{1} << feature;
}

uint64_t length_of(std::span<const Segment> segments) {
    uint64_t length = 0;
    for (const Segment& segment : segments) {
        length += segment.length;
    }
    return length;
}

const char* operation_name(BlockBackend::Operation operation) {
    switch (operation) {
        case BlockBackend::Operation::kRead:
            return "read";
        case BlockBackend::Operation::kWrite:
            return "write";
        case BlockBackend::Operation::kFlush:
            return "flush";
        case BlockBackend::Operation::kDiscard:
            return "discard";
        case BlockBackend::Operation::kWriteZeroes:
            return "write zeroes";
    }
    return "?";
}

}  // namespace

Result<std::unique_ptr<VirtioBlk>> VirtioBlk::create(EventLoop& loop, GuestMemory& memory,
                                                     std::unique_ptr<BlockBackend> backend,
                                                     std::string serial, uint16_t queues) {
    assert(queues >= 1 && queues <= kMaxQueues);
    auto device = std::unique_ptr<VirtioBlk>(
        new VirtioBlk(memory, std::move(backend), std::move(serial), queues));
    Result<void> watched;
    loop.call([&] {
        auto watch = loop.watch(device->backend_->completion_fd(), EPOLLIN,
                                [self = device.get()](uint32_t) { self->on_completions(); });
        if (watch) {
            device->watch_ = *std::move(watch);
        } else {
            watched = Unexpected{std::move(watch).error()};
        }
    });
    IVMM_TRY(std::move(watched));
    return device;
}

VirtioBlk::VirtioBlk(GuestMemory& memory, std::unique_ptr<BlockBackend> backend, std::string serial,
                     uint16_t queues)
    : memory_(memory),
      backend_(std::move(backend)),
      serial_(std::move(serial)),
      queue_sizes_(queues, kQueueSize),
      sectors_(backend_->size() / kSector),
      slots_(backend_->capacity()),
      out_of_slots_(queues) {
    for (size_t i = slots_.size(); i > 0; --i) {
        free_.push_back(i - 1);
    }
    config_.capacity = sectors_;
    config_.size_max = kSegmentSizeMax;
    config_.seg_max = kSegmentsMax;
    config_.blk_size = kSector;
    config_.physical_block_exp = 3;  // pages of the host's page cache
    config_.min_io_size = 8;
    config_.opt_io_size = 0;
    config_.num_queues = queues;
    config_.max_discard_sectors = kMaxUnmapSectors;
    config_.max_discard_seg = 1;
    config_.discard_sector_alignment = 8;
    config_.max_write_zeroes_sectors = kMaxUnmapSectors;
    config_.max_write_zeroes_seg = 1;
    config_.write_zeroes_may_unmap = 1;
}

VirtioBlk::~VirtioBlk() {
    VirtioBlk::reset();
}

uint32_t VirtioBlk::device_id() const {
    return VIRTIO_ID_BLOCK;
}

uint64_t VirtioBlk::offered_features() const {
    uint64_t features = bit(VIRTIO_BLK_F_SIZE_MAX) | bit(VIRTIO_BLK_F_SEG_MAX) |
                        bit(VIRTIO_BLK_F_BLK_SIZE) | bit(VIRTIO_BLK_F_TOPOLOGY) |
                        bit(VIRTIO_BLK_F_FLUSH);
    if (queue_sizes_.size() > 1) {
        features |= bit(VIRTIO_BLK_F_MQ);
    }
    if (backend_->read_only()) {
        return features | bit(VIRTIO_BLK_F_RO);
    }
    if (backend_->can_discard()) {
        features |= bit(VIRTIO_BLK_F_DISCARD);
    }
    if (backend_->can_write_zeroes()) {
        features |= bit(VIRTIO_BLK_F_WRITE_ZEROES);
    }
    return features;
}

void VirtioBlk::read_config(uint64_t offset, ByteSpan out) const {
    copy_window(bytes_of(config_), offset, out);
}

void VirtioBlk::activate(const Activation& activation) {
    activation_ = activation;
    std::fill(out_of_slots_.begin(), out_of_slots_.end(), false);
}

void VirtioBlk::reset() {
    // The queues are not given back what ends now: their driver has left them.
    activation_.reset();
    drain();
}

void VirtioBlk::freeze() {
    frozen_ = true;
    drain();
}

void VirtioBlk::thaw() {
    // What waits in the queues is found when the transport kicks them.
    frozen_ = false;
}

std::vector<std::byte> VirtioBlk::save_state() const {
    return encode_state(State{sectors_, backend_->read_only()});
}

Result<void> VirtioBlk::restore_state(ConstByteSpan bytes) {
    IVMM_ASSIGN(const State state, decode_state<State>(bytes));
    if (state != State{sectors_, backend_->read_only()}) {
        return fail("disk {} has {} sectors{}; the saved one had {}{}", backend_->name(), sectors_,
                    backend_->read_only() ? ", read-only" : "", state.sectors,
                    state.read_only ? ", read-only" : "");
    }
    return {};
}

// ---- Requests ----

void VirtioBlk::kick(uint16_t queue) {
    if (!frozen_) {
        process(queue);
    }
}

void VirtioBlk::process(uint16_t index) {
    Queue& queue = activation_->queues[index];
    out_of_slots_[index] = false;
    uint32_t budget = kRequestsPerRound;
    do {
        queue.disable_notifications();
        while (budget > 0 && has_room()) {
            auto chain = queue.pop();
            if (!chain) {
                break;
            }
            --budget;
            handle(index, *std::move(chain));
        }
        // Without room or budget, notifications stay off: we come back by ourselves. Looking again
        // costs budget, too: a guest may move avail.idx to and fro.
    } while (budget > 0 && has_room() && queue.enable_notifications() && --budget > 0);
    if (!has_room()) {
        out_of_slots_[index] = true;
    } else if (budget == 0) {
        activation_->driver->kick_later(index);
    }
    backend_->commit();
    activation_->driver->publish(index);
}

bool VirtioBlk::in_disk(uint64_t sector, uint64_t bytes) const {
    return bytes % kSector == 0 && range_within(sector, bytes / kSector, sectors_);
}

void VirtioBlk::handle(uint16_t queue, Chain chain) {
    Cursor request(memory_, chain.readable());
    virtio_blk_outhdr header{};
    if (!request.read(header)) {
        answer(queue, chain, VIRTIO_BLK_S_IOERR);
        return;
    }
    switch (header.type) {
        case VIRTIO_BLK_T_IN:
            transfer(queue, std::move(chain), false, header.sector);
            break;
        case VIRTIO_BLK_T_OUT:
            transfer(queue, std::move(chain), true, header.sector);
            break;
        case VIRTIO_BLK_T_FLUSH:
            submit(queue, std::move(chain), {});
            break;
        case VIRTIO_BLK_T_GET_ID:
            get_id(queue, chain);
            break;
        case VIRTIO_BLK_T_DISCARD:
            unmap(queue, std::move(chain), request, false);
            break;
        case VIRTIO_BLK_T_WRITE_ZEROES:
            unmap(queue, std::move(chain), request, true);
            break;
        default:
            answer(queue, chain, VIRTIO_BLK_S_UNSUPP);
    }
}

void VirtioBlk::transfer(uint16_t queue, Chain chain, bool write, uint64_t sector) {
    const uint64_t readable = length_of(chain.readable()) - sizeof(virtio_blk_outhdr);
    const uint64_t writable = length_of(chain.writable());
    if (writable == 0) {
        answer(queue, chain, VIRTIO_BLK_S_IOERR);
        return;
    }
    BlockBackend::Request request;
    request.operation = write ? BlockBackend::Operation::kWrite : BlockBackend::Operation::kRead;
    request.length = write ? readable : writable - 1;
    if (!in_disk(sector, request.length) || request.length > kMaxRequestBytes ||
        (write && backend_->read_only())) {
        answer(queue, chain, VIRTIO_BLK_S_IOERR);
        return;
    }
    if (request.length == 0) {
        answer(queue, chain, VIRTIO_BLK_S_OK);
        return;
    }
    request.offset = sector * kSector;
    // A driver that did not negotiate FLUSH takes every write for durable (5.2.6.2).
    request.durable = write && (activation_->features & bit(VIRTIO_BLK_F_FLUSH)) == 0;
    Cursor data(memory_, write ? chain.readable() : chain.writable());
    [[maybe_unused]] const bool there = (!write || data.skip(sizeof(virtio_blk_outhdr))) &&
                                        data.take_dma(request.length, request.buffers);
    assert(there);
    written_bytes_ += write ? request.length : 0;
    submit(queue, std::move(chain), std::move(request));
}

void VirtioBlk::get_id(uint16_t queue, const Chain& chain) {
    std::array<char, VIRTIO_BLK_ID_BYTES> id{};
    std::copy_n(serial_.begin(), std::min(serial_.size(), id.size()), id.begin());
    Cursor out(memory_, chain.writable());
    if (out.remaining() <= id.size() || !out.write(id)) {
        answer(queue, chain, VIRTIO_BLK_S_IOERR);
        return;
    }
    answer(queue, chain, VIRTIO_BLK_S_OK, id.size());
}

void VirtioBlk::unmap(uint16_t queue, Chain chain, Cursor request, bool write_zeroes) {
    const unsigned feature = write_zeroes ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD;
    if ((activation_->features & bit(feature)) == 0) {
        answer(queue, chain, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    virtio_blk_discard_write_zeroes range{};
    const bool one_range = request.read(range) && request.remaining() == 0;
    const uint32_t flags_allowed = write_zeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    if (one_range && (range.flags & ~flags_allowed) != 0) {
        answer(queue, chain, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    const uint64_t length = range.num_sectors * kSector;
    if (!one_range || range.num_sectors > kMaxUnmapSectors || !in_disk(range.sector, length)) {
        answer(queue, chain, VIRTIO_BLK_S_IOERR);
        return;
    }
    if (length == 0) {
        answer(queue, chain, VIRTIO_BLK_S_OK);
        return;
    }
    BlockBackend::Request work;
    work.operation =
        write_zeroes ? BlockBackend::Operation::kWriteZeroes : BlockBackend::Operation::kDiscard;
    work.offset = range.sector * kSector;
    work.length = length;
    work.may_deallocate = (range.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) != 0;
    submit(queue, std::move(chain), std::move(work));
}

void VirtioBlk::submit(uint16_t queue, Chain chain, BlockBackend::Request request) {
    const size_t index = free_.back();
    free_.pop_back();
    slots_[index] = {std::move(chain), queue, request.operation, request.offset, request.length};
    request.token = index;
    backend_->submit(std::move(request));
}

void VirtioBlk::answer(uint16_t queue, const Chain& chain, uint8_t status, uint64_t data) {
    Cursor out(memory_, chain.writable());
    uint32_t written = 0;
    if (out.remaining() > 0) {
        // The status is the last byte. The length that we report counts from the first one, so it
        // includes the status only if everything in front of it was written (2.7.8.2).
        const uint64_t front = out.remaining() - 1;
        [[maybe_unused]] const bool there = out.skip(front) && out.write(status);
        assert(there);
        written = static_cast<uint32_t>(data == front ? front + 1 : data);
    }
    activation_->queues[queue].push(chain, written);
}

// ---- Completions ----

void VirtioBlk::on_completions() {
    std::vector<BlockBackend::Completion> completions;
    backend_->poll(completions);
    finish(completions);
    if (!activation_ || frozen_) {
        return;
    }
    // Those who wait for slots take turns at being the first.
    const size_t queues = out_of_slots_.size();
    next_waiting_ = (next_waiting_ + 1) % queues;
    for (size_t i = 0; i < queues && has_room(); ++i) {
        const size_t queue = (next_waiting_ + i) % queues;
        if (out_of_slots_[queue]) {
            process(static_cast<uint16_t>(queue));
        }
    }
}

void VirtioBlk::finish(const std::vector<BlockBackend::Completion>& completions) {
    for (const auto& completion : completions) {
        InFlight& done = slots_[completion.token];
        const Chain& chain = *done.chain;
        const bool read = done.operation == BlockBackend::Operation::kRead;
        if (read) {
            // The host wrote it behind GuestMemory's back; perhaps a part of it if it failed.
            for (const Segment& segment : chain.writable()) {
                memory_.mark_dirty(segment.address, segment.length);
            }
        }
        if (completion.error != 0) {
            throttle_.warning("disk {}: {} of {} bytes at {} failed: {}", backend_->name(),
                              operation_name(done.operation), done.length, done.offset,
                              error_text(completion.error));
        }
        if (activation_) {
            const bool ok = completion.error == 0;
            answer(done.queue, chain, ok ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR,
                   ok && read ? done.length : 0);
        }
        done.chain.reset();
        free_.push_back(static_cast<size_t>(completion.token));
    }
    if (activation_) {
        const auto queues = static_cast<uint16_t>(activation_->queues.size());
        for (uint16_t i = 0; i < queues; ++i) {
            activation_->driver->publish(i);
        }
    }
}

void VirtioBlk::drain() {
    backend_->commit();
    while (free_.size() < slots_.size()) {
        std::vector<BlockBackend::Completion> completions;
        backend_->wait(completions);
        finish(completions);
    }
}

}  // namespace ivmm::virtio
