#include "tests/support/fake_driver.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <numeric>

#include "base/checked.h"

namespace ivmm::test {
namespace {

/// A test that asks for the impossible is wrong; it ends here.
void require(bool condition, const char* what) {
    if (!condition) {
        fmt::print(stderr, "fake driver: {}\n", what);
        std::abort();
    }
}

}  // namespace

void run_pending(EventLoop& loop) {
    // Stops after the next round, in which every ready descriptor has its turn.
    loop.post([&loop] { loop.stop(); });
    loop.run();
}

bool run_until(EventLoop& loop, const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end) {
            return false;
        }
        run_pending(loop);
    }
    return true;
}

Gpa Arena::allocate(uint64_t size, uint64_t alignment) {
    Gpa at = align_up(next_, alignment);
    if (at + size > end_) {
        at = align_up(start_, alignment);
        require(at + size <= end_, "arena too small");
    }
    next_ = at + size;
    return at;
}

Gpa Arena::reserve(uint64_t size, uint64_t alignment) {
    const Gpa at = allocate(size, alignment);
    start_ = next_;
    return at;
}

FakeQueue::FakeQueue(Arena& arena, uint16_t size, bool event_idx)
    : arena_(arena),
      memory_(arena.memory()),
      size_(size),
      event_idx_(event_idx),
      descriptors_(arena.reserve(16 * uint64_t{size}, 16)),
      available_(arena.reserve(6 + 2 * uint64_t{size}, 2)),
      used_(arena.reserve(6 + 8 * uint64_t{size}, 4)),
      free_(size) {
    std::iota(free_.begin(), free_.end(), uint16_t{0});
    require(memory_.fill(descriptors_, 16 * uint64_t{size}, std::byte{0}) &&
                memory_.fill(available_, 6 + 2 * uint64_t{size}, std::byte{0}) &&
                memory_.fill(used_, 6 + 8 * uint64_t{size}, std::byte{0}),
            "arena outside of RAM");
}

virtio::QueueState FakeQueue::layout() const {
    virtio::QueueState state;
    state.size = size_;
    state.descriptors = descriptors_;
    state.available = available_;
    state.used = used_;
    return state;
}

FakeQueue::ChainBuilder& FakeQueue::ChainBuilder::readable(ConstByteSpan bytes) {
    const Gpa at = queue_.arena_.allocate(bytes.size());
    require(queue_.memory_.write(at, bytes), "buffer outside of RAM");
    return readable_at(at, static_cast<uint32_t>(bytes.size()));
}

FakeQueue::ChainBuilder& FakeQueue::ChainBuilder::readable(std::string_view text) {
    return readable(std::as_bytes(std::span(text)));
}

FakeQueue::ChainBuilder& FakeQueue::ChainBuilder::writable(uint32_t length) {
    const Gpa at = queue_.arena_.allocate(length);
    require(queue_.memory_.fill(at, length, std::byte{0xee}), "buffer outside of RAM");
    return writable_at(at, length);
}

FakeQueue::ChainBuilder& FakeQueue::ChainBuilder::readable_at(Gpa address, uint32_t length) {
    request_.readable.push_back({address, length});
    return *this;
}

FakeQueue::ChainBuilder& FakeQueue::ChainBuilder::writable_at(Gpa address, uint32_t length) {
    request_.writable.push_back({address, length});
    return *this;
}

FakeQueue::ChainBuilder& FakeQueue::ChainBuilder::indirect() {
    indirect_ = true;
    return *this;
}

Request FakeQueue::ChainBuilder::add() {
    std::vector<virtio::Descriptor> list;
    for (const auto& segment : request_.readable) {
        list.push_back({segment.address, segment.length, virtio::kDescriptorNext, 0});
    }
    for (const auto& segment : request_.writable) {
        list.push_back({segment.address, segment.length,
                        virtio::kDescriptorNext | virtio::kDescriptorWrite, 0});
    }
    require(!list.empty(), "a chain without buffers");
    list.back().flags &= static_cast<uint16_t>(~virtio::kDescriptorNext);

    if (indirect_) {
        for (size_t i = 0; i + 1 < list.size(); ++i) {
            list[i].next = static_cast<uint16_t>(i + 1);
        }
        const auto table = std::as_bytes(std::span(list));
        const Gpa at = queue_.arena_.allocate(table.size());
        require(queue_.memory_.write(at, table), "table outside of RAM");
        const auto length = static_cast<uint32_t>(table.size());
        list = {{at, length, virtio::kDescriptorIndirect, 0}};
    }

    require(queue_.free_.size() >= list.size(), "no free descriptors");
    const auto end = queue_.free_.begin() + static_cast<std::ptrdiff_t>(list.size());
    std::vector<uint16_t> indices(queue_.free_.begin(), end);
    queue_.free_.erase(queue_.free_.begin(), end);
    for (size_t i = 0; i < list.size(); ++i) {
        if (i + 1 < list.size()) {
            list[i].next = indices[i + 1];
        }
        queue_.write_descriptor(indices[i], list[i]);
    }
    request_.head = indices.front();
    queue_.write_available(queue_.next_available_ % queue_.size_, request_.head);
    ++queue_.next_available_;
    queue_.in_flight_[request_.head] = {request_, std::move(indices)};
    return request_;
}

Request FakeQueue::ChainBuilder::send() {
    Request request = add();
    queue_.publish();
    return request;
}

void FakeQueue::publish() {
    published_available_ = next_available_;
    write_available_index(published_available_);
}

std::optional<Used> FakeQueue::take_used() {
    if (used_index() == next_used_) {
        return std::nullopt;
    }
    const auto element =
        memory_.read<virtio::UsedElement>(used_ + virtio::kRingEntries + 8 * (next_used_ % size_));
    require(element.has_value(), "used ring outside of RAM");
    const auto found = in_flight_.find(static_cast<uint16_t>(element->head));
    require(element->head < size_ && found != in_flight_.end(),
            "the device handed back what it was not given");
    ++next_used_;
    Used used{std::move(found->second.request), element->written};
    free_.insert(free_.end(), found->second.descriptors.begin(), found->second.descriptors.end());
    in_flight_.erase(found);
    return used;
}

std::vector<std::byte> FakeQueue::writable_bytes(const Request& request) const {
    std::vector<std::byte> bytes;
    for (const auto& segment : request.writable) {
        const size_t start = bytes.size();
        bytes.resize(start + segment.length);
        require(memory_.read(segment.address, std::span(bytes).subspan(start)),
                "buffer outside of RAM");
    }
    return bytes;
}

std::vector<std::byte> FakeQueue::written(const Used& used) const {
    auto bytes = writable_bytes(used.request);
    require(used.written <= bytes.size(), "the device says that it has written beyond the buffer");
    bytes.resize(used.written);
    return bytes;
}

bool FakeQueue::must_notify() {
    // The device stores avail_event and then loads avail.idx; we do it the other way round. The
    // locked instruction in between (marking the page dirty) is the barrier.
    const uint16_t before = std::exchange(notified_available_, published_available_);
    if (before == published_available_) {
        return false;
    }
    if (event_idx_) {
        const auto event = memory_.load_acquire(used_ + virtio::avail_event_offset(size_));
        return virtio::passes_event(event.value_or(0), published_available_, before);
    }
    const auto flags = memory_.load_acquire(used_ + virtio::kRingFlags);
    return (flags.value_or(0) & virtio::kUsedNoNotify) == 0;
}

void FakeQueue::set_used_event(uint16_t index) {
    require(memory_.store_release(available_ + virtio::used_event_offset(size_), index), "no RAM");
}

void FakeQueue::set_no_interrupt(bool no_interrupt) {
    require(memory_.store_release(available_ + virtio::kRingFlags,
                                  no_interrupt ? virtio::kAvailableNoInterrupt : uint16_t{0}),
            "no RAM");
}

uint16_t FakeQueue::used_index() const {
    return memory_.load_acquire(used_ + virtio::kRingIndex).value_or(0);
}

void FakeQueue::write_descriptor(uint16_t index, const virtio::Descriptor& descriptor) {
    require(memory_.write(descriptors_ + 16 * uint64_t{index}, descriptor), "no RAM");
}

void FakeQueue::write_available(uint16_t slot, uint16_t head) {
    require(memory_.write(available_ + virtio::kRingEntries + 2 * uint64_t{slot}, head), "no RAM");
}

void FakeQueue::write_available_index(uint16_t index) {
    require(memory_.store_release(available_ + virtio::kRingIndex, index), "no RAM");
}

void FakeDevicePort::activate(uint64_t features, uint16_t queue_size) {
    device_queues_.clear();
    driver_queues_.clear();
    device_queues_.reserve(device_.queue_sizes().size());
    for (const uint16_t max_size : device_.queue_sizes()) {
        driver_queues_.push_back(std::make_unique<FakeQueue>(
            arena_, std::min(max_size, queue_size), (features & virtio::kFeatureEventIdx) != 0));
        auto& queue = device_queues_.emplace_back(
            memory_, max_size, [this](std::string_view reason) { fail(reason); });
        queue.state() = driver_queues_.back()->layout();
        require(queue.enable(features), "the device's queue does not accept the layout");
    }
    device_.activate({features, device_queues_, this});
}

void FakeDevicePort::reset() {
    device_.reset();
    for (auto& queue : device_queues_) {
        queue.reset();
    }
    kick_later_.clear();
    failure_.clear();
}

void FakeDevicePort::kick(uint16_t queue) {
    device_.kick(queue);
    while (failure_.empty() && kick_later_.erase(queue) > 0) {
        device_.kick(queue);
    }
}

uint32_t FakeDevicePort::interrupts(uint16_t queue) const {
    const auto found = interrupts_.find(queue);
    return found == interrupts_.end() ? 0 : found->second;
}

void FakeDevicePort::publish(uint16_t queue) {
    if (device_queues_[queue].publish()) {
        ++interrupts_[queue];
    }
}

void FakeDevicePort::fail(std::string_view reason) {
    if (failure_.empty()) {
        failure_ = reason;
        for (auto& queue : device_queues_) {
            queue.break_queue(reason);
        }
    }
}

uint32_t FakeMmioDriver::read(uint64_t offset) {
    uint32_t value = 0;
    transport_.bus_read(offset, writable_bytes_of(value));
    return value;
}

void FakeMmioDriver::write(uint64_t offset, uint32_t value) {
    transport_.bus_write(offset, bytes_of(value));
}

uint64_t FakeMmioDriver::device_features() {
    write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    const uint64_t low = read(VIRTIO_MMIO_DEVICE_FEATURES);
    write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
    return low | uint64_t{read(VIRTIO_MMIO_DEVICE_FEATURES)} << 32;
}

void FakeMmioDriver::set_driver_features(uint64_t features) {
    features_ = features;
    write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    write(VIRTIO_MMIO_DRIVER_FEATURES, static_cast<uint32_t>(features));
    write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    write(VIRTIO_MMIO_DRIVER_FEATURES, static_cast<uint32_t>(features >> 32));
}

bool FakeMmioDriver::negotiate(uint64_t features) {
    write(VIRTIO_MMIO_STATUS, 0);
    write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    set_driver_features(features);
    write(VIRTIO_MMIO_STATUS, read(VIRTIO_MMIO_STATUS) | VIRTIO_CONFIG_S_FEATURES_OK);
    return (read(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK) != 0;
}

FakeQueue& FakeMmioDriver::set_up_queue(uint32_t index, uint16_t size) {
    auto& queue = queues_[index];
    queue = std::make_unique<FakeQueue>(arena_, size, (features_ & virtio::kFeatureEventIdx) != 0);
    write(VIRTIO_MMIO_QUEUE_SEL, index);
    write(VIRTIO_MMIO_QUEUE_NUM, size);
    const auto write64 = [&](uint64_t low, uint64_t high, Gpa value) {
        write(low, static_cast<uint32_t>(value));
        write(high, static_cast<uint32_t>(value >> 32));
    };
    write64(VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, queue->descriptors());
    write64(VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, queue->available());
    write64(VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH, queue->used());
    write(VIRTIO_MMIO_QUEUE_READY, 1);
    return *queue;
}

void FakeMmioDriver::driver_ok() {
    write(VIRTIO_MMIO_STATUS, read(VIRTIO_MMIO_STATUS) | VIRTIO_CONFIG_S_DRIVER_OK);
}

bool FakeMmioDriver::start(uint64_t features, uint16_t queue_size) {
    if (!negotiate(features)) {
        return false;
    }
    for (uint32_t index = 0;; ++index) {
        write(VIRTIO_MMIO_QUEUE_SEL, index);
        const uint32_t max = read(VIRTIO_MMIO_QUEUE_NUM_MAX);
        if (max == 0) {
            break;
        }
        set_up_queue(index, static_cast<uint16_t>(std::min<uint32_t>(max, queue_size)));
    }
    driver_ok();
    return true;
}

void FakeMmioDriver::notify(uint32_t index) {
    if (queue(index).must_notify()) {
        write(VIRTIO_MMIO_QUEUE_NOTIFY, index);
    }
}

}  // namespace ivmm::test
