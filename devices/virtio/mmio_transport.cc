#include "devices/virtio/mmio_transport.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <sys/epoll.h>

#include <cassert>

namespace ivmm::virtio {
namespace {

constexpr uint32_t kMagic = 0x74726976;   // "virt"
constexpr uint32_t kVersion = 2;          // virtio 1.x
constexpr uint32_t kVendor = 0x4d4d5649;  // "IVMM"
constexpr uint64_t kConfig = VIRTIO_MMIO_CONFIG;

constexpr uint32_t kAcknowledge = VIRTIO_CONFIG_S_ACKNOWLEDGE;
constexpr uint32_t kDriver = VIRTIO_CONFIG_S_DRIVER;
constexpr uint32_t kFeaturesOk = VIRTIO_CONFIG_S_FEATURES_OK;
constexpr uint32_t kDriverOk = VIRTIO_CONFIG_S_DRIVER_OK;
constexpr uint32_t kNeedsReset = VIRTIO_CONFIG_S_NEEDS_RESET;
constexpr uint32_t kFailed = VIRTIO_CONFIG_S_FAILED;
constexpr uint32_t kInterruptBits = VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG;

constexpr uint64_t kTransportFeatures = kFeatureVersion1 | kFeatureIndirect | kFeatureEventIdx;

uint32_t half(uint64_t value, uint32_t select) {
    return select > 1 ? 0 : static_cast<uint32_t>(value >> (32 * select));
}

void set_half(uint64_t& value, uint32_t select, uint32_t to) {
    if (select <= 1) {
        const uint32_t shift = 32 * select;
        value = (value & ~(uint64_t{0xffffffff} << shift)) | uint64_t{to} << shift;
    }
}

}  // namespace

Result<std::unique_ptr<MmioTransport>> MmioTransport::create(std::string name, EventLoop& loop,
                                                             GuestMemory& memory,
                                                             InterruptLine& interrupt,
                                                             std::unique_ptr<Device> device) {
    auto transport = std::unique_ptr<MmioTransport>(
        new MmioTransport(std::move(name), loop, memory, interrupt, std::move(device)));
    IVMM_TRY(transport->watch_notifications());
    return transport;
}

MmioTransport::MmioTransport(std::string name, EventLoop& loop, GuestMemory& memory,
                             InterruptLine& interrupt, std::unique_ptr<Device> device)
    : name_(std::move(name)),
      loop_(loop),
      memory_(memory),
      interrupt_(interrupt),
      device_(std::move(device)) {
    queues_.reserve(device_->queue_sizes().size());
    for (const uint16_t size : device_->queue_sizes()) {
        queues_.emplace_back(memory_, size, [this](std::string_view reason) { fail(reason); });
    }
}

MmioTransport::~MmioTransport() {
    reset();
}

Result<void> MmioTransport::watch_notifications() {
    for (size_t i = 0; i < queues_.size(); ++i) {
        IVMM_ASSIGN(auto event, EventFd::create());
        notify_events_.push_back(std::move(event));
    }
    Result<void> result;
    loop_.call([&] {
        for (uint16_t i = 0; i < queue_count() && result; ++i) {
            auto watch =
                loop_.watch(notify_events_[i].fd(), EPOLLIN, [this, i](uint32_t) { on_notify(i); });
            if (watch) {
                watches_.push_back(*std::move(watch));
            } else {
                result = annotate(std::move(watch).error(), name_);
            }
        }
        if (!result) {
            watches_.clear();  // the caller's thread may not end them
        }
    });
    return result;
}

void MmioTransport::on_notify(uint16_t queue) {
    if (frozen_) {
        return;  // an event of the round in which the freeze came; it stays for thaw()
    }
    notify_events_[queue].drain();
    if (active_ && queues_[queue].ready()) {
        device_->kick(queue);
    }
}

bool MmioTransport::needs_reset() const {
    return (status_ & kNeedsReset) != 0;
}

uint64_t MmioTransport::offered_features() const {
    return device_->offered_features() | kTransportFeatures;
}

// ---- Registers (virtio 1.2, 4.2.2) ----

void MmioTransport::bus_read(uint64_t offset, ByteSpan data) {
    if (offset >= kConfig) {
        loop_.call([&] { device_->read_config(offset - kConfig, data); });
        return;
    }
    uint32_t value = 0;
    if (data.size() == sizeof value) {
        switch (offset) {
            case VIRTIO_MMIO_MAGIC_VALUE:
                value = kMagic;
                break;
            case VIRTIO_MMIO_VERSION:
                value = kVersion;
                break;
            case VIRTIO_MMIO_DEVICE_ID:
                value = device_->device_id();
                break;
            case VIRTIO_MMIO_VENDOR_ID:
                value = kVendor;
                break;
            case VIRTIO_MMIO_INTERRUPT_STATUS:
                value = interrupt_status_.load();
                break;
            default:
                loop_.call([&] { value = read_register(offset); });
        }
    }
    store_le(data, value);
}

uint32_t MmioTransport::read_register(uint64_t offset) const {
    const Queue* queue = queue_select_ < queues_.size() ? &queues_[queue_select_] : nullptr;
    switch (offset) {
        case VIRTIO_MMIO_DEVICE_FEATURES:
            return half(offered_features(), device_features_select_);
        case VIRTIO_MMIO_QUEUE_NUM_MAX:
            return queue != nullptr ? queue->max_size() : 0;
        case VIRTIO_MMIO_QUEUE_READY:
            return queue != nullptr && queue->state().ready ? 1 : 0;
        case VIRTIO_MMIO_STATUS:
            return status_;
        case VIRTIO_MMIO_CONFIG_GENERATION:
            return config_generation_;
        case VIRTIO_MMIO_SHM_LEN_LOW:
        case VIRTIO_MMIO_SHM_LEN_HIGH:
        case VIRTIO_MMIO_SHM_BASE_LOW:
        case VIRTIO_MMIO_SHM_BASE_HIGH:
            return ~uint32_t{0};  // no shared memory
        default:
            return 0;
    }
}

void MmioTransport::bus_write(uint64_t offset, ConstByteSpan data) {
    if (offset >= kConfig) {
        loop_.call([&] {
            if (!needs_reset()) {
                device_->write_config(offset - kConfig, data);
            }
        });
        return;
    }
    if (data.size() != sizeof(uint32_t)) {
        return;
    }
    const auto value = load_at<uint32_t>(data, 0);
    switch (offset) {
        case VIRTIO_MMIO_QUEUE_NOTIFY:
            // Only if no KVM ioeventfd has taken it.
            if (value < notify_events_.size()) {
                notify_events_[value].signal();
            }
            break;
        case VIRTIO_MMIO_INTERRUPT_ACK:
            interrupt_status_.fetch_and(~value);
            break;
        default:
            loop_.call([&] { write_register(offset, value); });
    }
}

void MmioTransport::write_register(uint64_t offset, uint32_t value) {
    if (offset == VIRTIO_MMIO_STATUS) {
        write_status(value);
        return;
    }
    if (needs_reset()) {
        return;
    }
    switch (offset) {
        case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
            device_features_select_ = value;
            break;
        case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
            driver_features_select_ = value;
            break;
        case VIRTIO_MMIO_DRIVER_FEATURES:
            if ((status_ & kDriver) != 0 && (status_ & kFeaturesOk) == 0) {
                set_half(driver_features_, driver_features_select_, value);
            }
            break;
        case VIRTIO_MMIO_QUEUE_SEL:
            queue_select_ = value;
            break;
        default:
            write_queue_register(offset, value);
    }
}

void MmioTransport::write_queue_register(uint64_t offset, uint32_t value) {
    // Queues are set up between FEATURES_OK and DRIVER_OK (3.1.1).
    if (queue_select_ >= queues_.size() || (status_ & kFeaturesOk) == 0) {
        return;
    }
    Queue& queue = queues_[queue_select_];
    if (offset == VIRTIO_MMIO_QUEUE_READY) {
        write_queue_ready(queue, value);
        return;
    }
    QueueState& state = queue.state();
    if (state.ready) {
        return;
    }
    switch (offset) {
        case VIRTIO_MMIO_QUEUE_NUM:
            // 0 is no size that write_queue_ready() accepts.
            state.size = value <= queue.max_size() ? static_cast<uint16_t>(value) : uint16_t{0};
            break;
        case VIRTIO_MMIO_QUEUE_DESC_LOW:
            set_half(state.descriptors, 0, value);
            break;
        case VIRTIO_MMIO_QUEUE_DESC_HIGH:
            set_half(state.descriptors, 1, value);
            break;
        case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
            set_half(state.available, 0, value);
            break;
        case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
            set_half(state.available, 1, value);
            break;
        case VIRTIO_MMIO_QUEUE_USED_LOW:
            set_half(state.used, 0, value);
            break;
        case VIRTIO_MMIO_QUEUE_USED_HIGH:
            set_half(state.used, 1, value);
            break;
        default:
            break;
    }
}

void MmioTransport::write_queue_ready(Queue& queue, uint32_t value) {
    if (value == 0 && queue.state().ready) {
        // What the device still does with the queue must have ended when the driver reads 0.
        if (active_) {
            device_->freeze();
        }
        queue.reset();
        if (active_ && !frozen_) {
            device_->thaw();
            for (uint16_t i = 0; i < queue_count(); ++i) {
                kick_later(i);
            }
        }
    } else if (value == 1 && !queue.state().ready && (status_ & kDriverOk) == 0) {
        if (!queue.enable(driver_features_)) {
            fail("a queue with an impossible size or address");
        }
    }
}

void MmioTransport::write_status(uint32_t value) {
    if (value == 0) {
        reset();
        return;
    }
    if (needs_reset()) {
        return;
    }
    // Bits are only added, and in this order (3.1.1); the driver reads back what was accepted.
    status_ |= value & (kAcknowledge | kFailed);
    if ((status_ & kFailed) != 0) {
        return;
    }
    if ((value & kDriver) != 0 && (status_ & kAcknowledge) != 0) {
        status_ |= kDriver;
    }
    if ((value & kFeaturesOk) != 0 && (status_ & kDriver) != 0 &&
        (driver_features_ & kFeatureVersion1) != 0 &&
        (driver_features_ & ~offered_features()) == 0) {
        status_ |= kFeaturesOk;
    }
    if ((value & kDriverOk) != 0 && (status_ & kFeaturesOk) != 0 && !active_) {
        status_ |= kDriverOk;
        activate();
        // A driver may have filled a queue and not notified us, as nobody listened.
        for (uint16_t i = 0; i < queue_count(); ++i) {
            kick_later(i);
        }
    }
}

void MmioTransport::activate() {
    active_ = true;
    device_->activate({driver_features_, queues_, this});
}

void MmioTransport::reset() {
    if (active_) {
        device_->reset();
        active_ = false;
    }
    for (Queue& queue : queues_) {
        queue.reset();
    }
    for (const EventFd& event : notify_events_) {
        event.drain();
    }
    status_ = 0;
    interrupt_status_ = 0;
    device_features_select_ = 0;
    driver_features_select_ = 0;
    driver_features_ = 0;
    queue_select_ = 0;
}

// ---- What the device tells its driver ----

void MmioTransport::raise(uint32_t bits) {
    interrupt_status_.fetch_or(bits);
    interrupt_.trigger();
}

void MmioTransport::publish(uint16_t queue) {
    if (queues_[queue].publish()) {
        raise(VIRTIO_MMIO_INT_VRING);
    }
}

void MmioTransport::kick_later(uint16_t queue) {
    notify_events_[queue].signal();
}

void MmioTransport::config_changed() {
    ++config_generation_;
    raise(VIRTIO_MMIO_INT_CONFIG);
}

void MmioTransport::fail(std::string_view reason) {
    if (needs_reset()) {
        return;
    }
    status_ |= kNeedsReset;
    for (Queue& queue : queues_) {
        queue.break_queue(reason);
    }
    throttle_.warning("{}: stopped until its driver resets it: {}", name_, reason);
    if ((status_ & kDriverOk) != 0) {
        raise(VIRTIO_MMIO_INT_CONFIG);
    }
}

// ---- Freeze, save, restore ----

void MmioTransport::freeze() {
    if (frozen_) {
        return;
    }
    frozen_ = true;
    for (EventLoop::Watch& watch : watches_) {
        watch.set_events(0);
    }
    device_->freeze();
    // A device may leave publishing to the end of its round, which may be now.
    for (uint16_t i = 0; i < queue_count(); ++i) {
        publish(i);
    }
}

void MmioTransport::thaw() {
    if (!frozen_) {
        return;
    }
    frozen_ = false;
    device_->thaw();
    for (EventLoop::Watch& watch : watches_) {
        watch.set_events(EPOLLIN);
    }
    // Notifications and interrupts that were under way at the time of a save are lost to whoever
    // was restored from it. Both sides must cope with one too many, so each gets one.
    if (active_) {
        for (uint16_t i = 0; i < queue_count(); ++i) {
            kick_later(i);
        }
        raise(needs_reset() ? VIRTIO_MMIO_INT_CONFIG : VIRTIO_MMIO_INT_VRING);
    }
}

std::vector<std::byte> MmioTransport::save_state() const {
    TransportState state;
    state.device_id = device_->device_id();
    state.status = status_;
    state.interrupt_status = interrupt_status_.load();
    state.config_generation = config_generation_;
    state.device_features_select = device_features_select_;
    state.driver_features_select = driver_features_select_;
    state.driver_features = driver_features_;
    state.queue_select = queue_select_;
    for (const Queue& queue : queues_) {
        state.queues.push_back(queue.state());
    }
    state.device = device_->save_state();
    return encode_state(state);
}

Result<void> MmioTransport::check(const TransportState& state) const {
    const auto has = [&](uint32_t bit) { return (state.status & bit) != 0; };
    if (state.device_id != device_->device_id()) {
        return ivmm::fail("it is of device type {}, not {}", state.device_id, device_->device_id());
    }
    const bool status_possible =
        (state.status &
         ~(kAcknowledge | kDriver | kFeaturesOk | kDriverOk | kNeedsReset | kFailed)) == 0 &&
        (!has(kDriver) || has(kAcknowledge)) && (!has(kFeaturesOk) || has(kDriver)) &&
        (!has(kDriverOk) || has(kFeaturesOk)) && (!has(kNeedsReset) || has(kFeaturesOk));
    if (!status_possible || (state.interrupt_status & ~kInterruptBits) != 0) {
        return ivmm::fail("status {:#x} with interrupt status {:#x} is impossible", state.status,
                          state.interrupt_status);
    }
    if (has(kFeaturesOk) && ((state.driver_features & kFeatureVersion1) == 0 ||
                             (state.driver_features & ~offered_features()) != 0)) {
        return ivmm::fail("features {:#x} are not what this device offers ({:#x})",
                          state.driver_features, offered_features());
    }
    if (state.queues.size() != queues_.size()) {
        return ivmm::fail("it has {} queues, not {}", state.queues.size(), queues_.size());
    }
    for (size_t i = 0; i < queues_.size(); ++i) {
        if (state.queues[i].ready && !has(kFeaturesOk)) {
            return ivmm::fail("queue {} is ready before the features are", i);
        }
        if (auto checked = queues_[i].check(state.queues[i]); !checked) {
            return annotate(std::move(checked).error(), fmt::format("queue {}", i));
        }
    }
    return {};
}

Result<void> MmioTransport::restore_state(ConstByteSpan bytes) {
    assert(frozen_);
    const auto refused = [&](Error error) {
        return annotate(std::move(error), name_ + ": cannot restore its state");
    };
    auto decoded = decode_state<TransportState>(bytes);
    if (!decoded) {
        return refused(std::move(decoded).error());
    }
    const TransportState& state = *decoded;
    if (auto checked = check(state); !checked) {
        return refused(std::move(checked).error());
    }

    // The device itself checks its part last. If it refuses, it goes on as it was.
    const auto previous = device_->save_state();
    const bool was_active = active_;
    if (active_) {
        device_->reset();
        active_ = false;
    }
    if (auto restored = device_->restore_state(state.device); !restored) {
        if (was_active) {
            [[maybe_unused]] const auto back = device_->restore_state(previous);
            assert(back);
            activate();
        }
        return refused(std::move(restored).error());
    }

    status_ = state.status;
    interrupt_status_ = state.interrupt_status;
    config_generation_ = state.config_generation;
    device_features_select_ = state.device_features_select;
    driver_features_select_ = state.driver_features_select;
    driver_features_ = state.driver_features;
    queue_select_ = state.queue_select;
    for (size_t i = 0; i < queues_.size(); ++i) {
        queues_[i].restore(state.queues[i], driver_features_);
    }
    if (needs_reset()) {
        for (Queue& queue : queues_) {
            queue.break_queue("restored in need of a reset");
        }
    }
    if ((status_ & kDriverOk) != 0) {
        activate();
    }
    return {};
}

}  // namespace ivmm::virtio
