#include "devices/console/virtio_console.h"

#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/state_codec.h"

namespace ivmm::virtio {

namespace {

// The receive queue is short because a guest fills all of it with pages of its own.
constexpr std::array<uint16_t, 2> kQueueSizes = {16, 64};

// What one kick does before others have their turn.
constexpr uint64_t kTransmitBytesAtOnce = uint64_t{64} << 10;
constexpr int kRequestsAtOnce = 256;

}  // namespace

VirtioConsole::VirtioConsole(EventFd typed, GuestMemory& memory, ConsoleOutput& output,
                             std::optional<Size> size)
    : memory_(memory), output_(output), size_(size), typed_(std::move(typed)) {}

Result<std::unique_ptr<VirtioConsole>> VirtioConsole::create(EventLoop& loop, GuestMemory& memory,
                                                             ConsoleOutput& output,
                                                             std::optional<Size> size) {
    IVMM_ASSIGN(auto typed, EventFd::create());
    std::unique_ptr<VirtioConsole> self(new VirtioConsole(std::move(typed), memory, output, size));
    IVMM_ASSIGN(self->typed_watch_,
                loop.watch(self->typed_.fd(), EPOLLIN, [raw = self.get()](uint32_t) {
                    raw->typed_.drain();
                    raw->receive();
                }));
    return self;
}

size_t VirtioConsole::console_input(ConstByteSpan bytes) {
    size_t n = 0;
    {
        const std::scoped_lock lock(mutex_);
        n = std::min(bytes.size(), kInputSize - input_.size());
        for (const std::byte byte : bytes.first(n)) {
            input_.push_back(std::to_integer<uint8_t>(byte));
        }
    }
    if (n > 0) {
        typed_.signal();
    }
    return n;
}

uint32_t VirtioConsole::device_id() const {
    return VIRTIO_ID_CONSOLE;
}

uint64_t VirtioConsole::offered_features() const {
    return size_ ? uint64_t{1} << VIRTIO_CONSOLE_F_SIZE : 0;
}

std::span<const uint16_t> VirtioConsole::queue_sizes() const {
    return kQueueSizes;
}

void VirtioConsole::read_config(uint64_t offset, ByteSpan out) const {
    virtio_console_config config{};
    if (size_) {
        config.cols = size_->columns;
        config.rows = size_->rows;
    }
    copy_window(bytes_of(config), offset, out);
}

void VirtioConsole::activate(const Activation& activation) {
    activation_ = activation;
    receive();
    transmit();
}

void VirtioConsole::kick(uint16_t queue) {
    if (queue == kReceiveQueue) {
        receive();
    } else if (queue == kTransmitQueue) {
        transmit();
    }
}

void VirtioConsole::reset() {
    activation_.reset();
    transmitted_ = 0;
}

void VirtioConsole::thaw() {
    frozen_ = false;
    receive();
    transmit();
}

void VirtioConsole::receive() {
    if (!running()) {
        return;
    }
    Queue& queue = activation_->queues[kReceiveQueue];
    std::vector<std::byte> bytes;
    // Each round takes at least a byte of the bounded input or a request with no room.
    for (int rounds = 0; rounds < kRequestsAtOnce; ++rounds) {
        const std::scoped_lock lock(mutex_);
        if (input_.empty()) {
            break;
        }
        const auto chain = queue.pop();
        if (!chain) {
            if (queue.enable_notifications()) {
                continue;
            }
            break;
        }
        Cursor cursor(memory_, chain->writable());
        bytes.resize(std::min<uint64_t>(cursor.remaining(), input_.size()));
        for (std::byte& byte : bytes) {
            byte = std::byte{input_.front()};
            input_.pop_front();
        }
        const bool written = cursor.write(std::as_bytes(std::span(bytes)));
        queue.push(*chain, written ? static_cast<uint32_t>(bytes.size()) : 0);
    }
    activation_->driver->publish(kReceiveQueue);
    const std::scoped_lock lock(mutex_);
    if (!input_.empty() && queue.enable_notifications()) {
        activation_->driver->kick_later(kReceiveQueue);
    }
}

void VirtioConsole::transmit() {
    if (!running()) {
        return;
    }
    Queue& queue = activation_->queues[kTransmitQueue];
    std::array<std::byte, 4096> buffer{};
    uint64_t budget = kTransmitBytesAtOnce;
    bool more = true;
    for (int rounds = 0; rounds < kRequestsAtOnce && budget > 0 && more; ++rounds) {
        queue.disable_notifications();
        const auto chain = queue.pop();
        if (!chain) {
            more = queue.enable_notifications();
            continue;
        }
        Cursor cursor(memory_, chain->readable());
        // The guest may have made the request shorter since we left it.
        bool ok = cursor.skip(std::min(transmitted_, cursor.remaining()));
        while (ok && cursor.remaining() > 0 && budget > 0) {
            const auto n = std::min({cursor.remaining(), budget, uint64_t{buffer.size()}});
            const auto part = std::span(buffer).first(n);
            ok = cursor.read(part);
            output_.console_output(part);
            transmitted_ += n;
            budget -= n;
        }
        if (cursor.remaining() > 0) {
            queue.undo_pop();
        } else {
            queue.push(*chain, 0);
            transmitted_ = 0;
        }
    }
    activation_->driver->publish(kTransmitQueue);
    if (more) {
        activation_->driver->kick_later(kTransmitQueue);
    }
}

std::vector<std::byte> VirtioConsole::save_state() const {
    const std::scoped_lock lock(mutex_);
    State state;
    state.transmitted = transmitted_;
    state.input.assign(input_.begin(), input_.end());
    return encode_state(state);
}

Result<void> VirtioConsole::restore_state(ConstByteSpan bytes) {
    IVMM_ASSIGN(const auto state, decode_state<State>(bytes));
    // A request has less than 4 GiB.
    if (state.transmitted > std::numeric_limits<uint32_t>::max() ||
        state.input.size() > kInputSize) {
        return fail("the console's state holds more than a console can");
    }
    const std::scoped_lock lock(mutex_);
    transmitted_ = state.transmitted;
    input_.assign(state.input.begin(), state.input.end());
    return {};
}

}  // namespace ivmm::virtio
