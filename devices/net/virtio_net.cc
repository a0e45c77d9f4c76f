#include "devices/net/virtio_net.h"

#include <linux/virtio_ids.h>
#include <sys/epoll.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "base/log.h"
#include "base/state_codec.h"

namespace ivmm::virtio {

namespace {

constexpr std::array<uint16_t, 3> kQueueSizes = {256, 256, 64};

// What one call does before others have their turn.
constexpr int kFramesReceivedAtOnce = 64;
constexpr int kBatchesSentAtOnce = 8;
constexpr size_t kBatchSize = 32;
constexpr int kCommandsAtOnce = 64;

/// How long a frame waits for a driver that has buffers to bring back.
constexpr std::chrono::milliseconds kPatience{100};

constexpr uint64_t bit(unsigned feature) {
    return uint64_t{1} << feature;
}

constexpr uint64_t kGuestOffloadBits = bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4) |
                                       bit(VIRTIO_NET_F_GUEST_TSO6) | bit(VIRTIO_NET_F_GUEST_ECN);
constexpr uint8_t kReceiveModeBits =
    (1U << VIRTIO_NET_CTRL_RX_PROMISC) | (1U << VIRTIO_NET_CTRL_RX_ALLMULTI);

bool is_unicast(const std::array<uint8_t, 6>& mac) {
    return (mac[0] & 1U) == 0 && mac != std::array<uint8_t, 6>{};
}

bool skip_mac_table(Cursor& command) {
    uint32_t entries = 0;
    return command.read(entries) && command.skip(uint64_t{entries} * 6);
}

log::Throttle& host_faults() {
    static log::Throttle throttle;
    return throttle;
}

}  // namespace

/// A request from the transmit queue.
struct VirtioNet::Outgoing {
    explicit Outgoing(Chain request) : chain(std::move(request)) {}
    Chain chain;
    NetHeader header{};
    std::vector<iovec> pieces;  ///< header, then frame; empty: not to be sent
    uint64_t length = 0;        ///< of the frame
};

VirtioNet::VirtioNet(GuestMemory& memory, std::unique_ptr<NetBackend> backend,
                     const std::array<uint8_t, 6>& mac, uint16_t mtu)
    : memory_(memory),
      backend_(std::move(backend)),
      configured_mac_(mac),
      mtu_(mtu),
      mac_(mac),
      buffer_(sizeof(NetHeader) + kMaxFrameLength) {
    outgoing_.reserve(kBatchSize);
}

VirtioNet::~VirtioNet() = default;

Result<std::unique_ptr<VirtioNet>> VirtioNet::create(EventLoop& loop, GuestMemory& memory,
                                                     std::unique_ptr<NetBackend> backend,
                                                     const std::array<uint8_t, 6>& mac,
                                                     uint16_t mtu) {
    if (!is_unicast(mac)) {
        return fail_as(ErrorKind::kUsage, "a network device needs a unicast MAC address");
    }
    std::unique_ptr<VirtioNet> self(new VirtioNet(memory, std::move(backend), mac, mtu));
    IVMM_ASSIGN(self->patience_,
                Timer::create(loop, [raw = self.get()] { raw->patience_ended(); }));
    self->backend_->set_callbacks([raw = self.get()] { raw->receive(); },
                                  [raw = self.get()] { raw->transmit(); });
    return self;
}

NetCounters VirtioNet::counters() const {
    const auto get = [](const Counter& counter) {
        return counter.value.load(std::memory_order_relaxed);
    };
    return {
        .transmitted_frames = get(transmitted_frames_),
        .transmitted_bytes = get(transmitted_bytes_),
        .transmit_invalid = get(transmit_invalid_),
        .transmit_refused = get(transmit_refused_),
        .received_frames = get(received_frames_),
        .received_bytes = get(received_bytes_),
        .receive_dropped = get(receive_dropped_),
    };
}

uint32_t VirtioNet::device_id() const {
    return VIRTIO_ID_NET;
}

uint64_t VirtioNet::offered_features() const {
    return bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_HOST_TSO4) | bit(VIRTIO_NET_F_HOST_TSO6) |
           bit(VIRTIO_NET_F_HOST_ECN) | kGuestOffloadBits | bit(VIRTIO_NET_F_MRG_RXBUF) |
           bit(VIRTIO_NET_F_MAC) | bit(VIRTIO_NET_F_STATUS) | bit(VIRTIO_NET_F_CTRL_VQ) |
           bit(VIRTIO_NET_F_CTRL_RX) | bit(VIRTIO_NET_F_CTRL_MAC_ADDR) |
           bit(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | (mtu_ != 0 ? bit(VIRTIO_NET_F_MTU) : 0);
}

std::span<const uint16_t> VirtioNet::queue_sizes() const {
    return kQueueSizes;
}

void VirtioNet::read_config(uint64_t offset, ByteSpan out) const {
    virtio_net_config config{};
    std::ranges::copy(mac_, config.mac);
    config.status = VIRTIO_NET_S_LINK_UP;
    config.mtu = mtu_;
    copy_window(bytes_of(config), offset, out);
}

bool VirtioNet::negotiated(unsigned feature) const {
    return (activation_->features & bit(feature)) != 0;
}

void VirtioNet::activate(const Activation& activation) {
    activation_ = activation;
    transmit_offloads_ = transmit_offloads(activation.features);
    apply_guest_offloads();
    start_work();
}

void VirtioNet::apply_guest_offloads() {
    const uint64_t features = activation_ ? activation_->features : 0;
    receive_offloads_ = receive_offloads(features & guest_offloads_.value_or(kGuestOffloadBits));
    if (const auto set = backend_->set_offloads(receive_offloads_); !set) {
        // Frames that the driver cannot take are dropped one by one.
        host_faults().warning("virtio-net: {}", set.error().message);
    }
}

void VirtioNet::kick(uint16_t queue) {
    if (queue == kReceiveQueue) {
        // A kick while a frame waits need not have brought all that the driver had.
        driver_has_buffers_ = driver_has_buffers_ && waiting_;
        receive();
    } else if (queue == kTransmitQueue) {
        transmit();
    } else if (queue == kControlQueue) {
        control();
    }
}

void VirtioNet::reset() {
    stop_work();
    activation_.reset();
    mac_ = configured_mac_;
    receive_modes_ = 0;
    guest_offloads_.reset();
    frame_length_ = 0;
    driver_has_buffers_ = false;
    apply_guest_offloads();
}

void VirtioNet::freeze() {
    frozen_ = true;
    stop_work();
}

void VirtioNet::thaw() {
    frozen_ = false;
    start_work();
}

void VirtioNet::start_work() {
    if (running()) {
        receive();
        transmit();
        control();
    }
}

void VirtioNet::stop_work() {
    backend_->want_receive(false);
    backend_->want_send(false);
    stop_waiting();
}

// ---------------------------------------------------------------------------------------------
// Receiving. A frame goes through a buffer of our own, because its length decides how many of the
// guest's buffers it takes, and how many it takes must be written into the first of them.

void VirtioNet::receive() {
    if (!running()) {
        return;
    }
    Queue& queue = activation_->queues[kReceiveQueue];
    queue.disable_notifications();
    bool buffers = true;
    for (int i = 0; i < kFramesReceivedAtOnce && buffers; ++i) {
        auto first = queue.pop();
        if (!first) {
            buffers = queue.enable_notifications();
            continue;
        }
        receive_chains_.push_back(*std::move(first));
        if (frame_length_ == 0) {
            const iovec room{buffer_.data(), buffer_.size()};
            const auto length = backend_->receive(std::span(&room, 1));
            if (!length) {
                undo_receive_pops(queue);
                break;
            }
            frame_length_ = *length;
        }
        buffers = deliver(queue) == Delivery::kDone;
    }
    // Without buffers the backend keeps silent until the guest brings some (or patience ends).
    backend_->want_receive(buffers);
    activation_->driver->publish(kReceiveQueue);
}

VirtioNet::Delivery VirtioNet::deliver(Queue& queue) {
    const auto room = [](const Chain& chain) {
        const auto segments = chain.writable();
        return std::accumulate(
            segments.begin(), segments.end(), uint64_t{0},
            [](uint64_t sum, const Segment& segment) { return sum + segment.length; });
    };

    if (!frame_receivable()) {
        return drop(queue);
    }
    uint64_t total = room(receive_chains_.front());
    if (negotiated(VIRTIO_NET_F_MRG_RXBUF)) {
        while (total < frame_length_ && receive_chains_.size() < queue.state().size) {
            if (auto next = queue.pop()) {
                total += room(*next);
                receive_chains_.push_back(*std::move(next));
            } else if (!queue.enable_notifications()) {
                break;
            }
        }
        if (total < frame_length_ && driver_has_buffers_) {
            // The driver is at work on frames that it has got; when it brings their buffers, there
            // may be enough. Its kicks tell, until patience ends.
            undo_receive_pops(queue);
            if (!waiting_) {
                waiting_ = true;
                patience_.set_once(kPatience);
            }
            return Delivery::kNoBuffers;
        }
    }
    if (total < frame_length_) {
        driver_has_buffers_ = false;
        return drop(queue);
    }

    auto header = load_at<NetHeader>(buffer_, 0);
    if (!receive_offloads_.checksum) {
        header.flags = 0;
    }
    header.num_buffers = static_cast<uint16_t>(receive_chains_.size());
    std::ranges::copy(bytes_of(header), buffer_.begin());
    auto rest = ConstByteSpan(buffer_).first(frame_length_);
    for (const Chain& chain : receive_chains_) {
        Cursor cursor(memory_, chain.writable());
        const auto part = rest.first(std::min<uint64_t>(cursor.remaining(), rest.size()));
        std::ignore = cursor.write(part);
        queue.push(chain, static_cast<uint32_t>(part.size()));
        rest = rest.subspan(part.size());
    }
    receive_chains_.clear();
    received_frames_.add(1);
    received_bytes_.add(frame_length_ - sizeof(NetHeader));
    frame_length_ = 0;
    driver_has_buffers_ = true;
    stop_waiting();
    return Delivery::kDone;
}

VirtioNet::Delivery VirtioNet::drop(Queue& queue) {
    undo_receive_pops(queue);
    receive_dropped_.add(1);
    frame_length_ = 0;
    stop_waiting();
    return Delivery::kDone;
}

/// Whether the driver has declared itself able to take what is in the buffer.
bool VirtioNet::frame_receivable() const {
    if (frame_length_ < sizeof(NetHeader) + kMinFrameLength || frame_length_ > buffer_.size()) {
        return false;
    }
    const auto header = load_at<NetHeader>(buffer_, 0);
    const bool partial = (header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0;
    const bool ecn = (header.gso_type & VIRTIO_NET_HDR_GSO_ECN) != 0;
    if ((partial && !receive_offloads_.checksum) || (ecn && !receive_offloads_.tso_ecn)) {
        return false;
    }
    switch (header.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
        case VIRTIO_NET_HDR_GSO_NONE:
            return true;
        case VIRTIO_NET_HDR_GSO_TCPV4:
            return receive_offloads_.tso4;
        case VIRTIO_NET_HDR_GSO_TCPV6:
            return receive_offloads_.tso6;
        default:
            return false;
    }
}

void VirtioNet::undo_receive_pops(Queue& queue) {
    for (size_t i = 0; i < receive_chains_.size(); ++i) {
        queue.undo_pop();
    }
    receive_chains_.clear();
}

void VirtioNet::stop_waiting() {
    if (waiting_) {
        waiting_ = false;
        patience_.stop();
    }
}

void VirtioNet::patience_ended() {
    driver_has_buffers_ = false;
    receive();
}

// ---------------------------------------------------------------------------------------------
// Transmitting.

void VirtioNet::transmit() {
    if (!running()) {
        return;
    }
    Queue& queue = activation_->queues[kTransmitQueue];
    backend_->want_send(false);
    for (int i = 0; i < kBatchesSentAtOnce; ++i) {
        queue.disable_notifications();
        const size_t count = collect(queue);
        if (count == 0) {
            if (!queue.enable_notifications()) {
                return;
            }
            continue;
        }
        const bool all = send_collected(queue, count);
        activation_->driver->publish(kTransmitQueue);
        if (!all) {
            backend_->want_send(true);
            return;
        }
    }
    activation_->driver->kick_later(kTransmitQueue);
}

/// Takes up to a batch of requests from the queue into outgoing_; returns how many.
size_t VirtioNet::collect(Queue& queue) {
    outgoing_.clear();
    while (outgoing_.size() < kBatchSize) {
        auto chain = queue.pop();
        if (!chain) {
            break;
        }
        Outgoing& out = outgoing_.emplace_back(*std::move(chain));
        Cursor cursor(memory_, out.chain.readable());
        NetHeader header{};
        if (!cursor.read(header)) {
            continue;
        }
        out.length = cursor.remaining();
        const auto checked = checked_header(header, out.length, transmit_offloads_);
        if (!checked) {
            continue;
        }
        out.header = *checked;
        // outgoing_ has room for a batch, so that the header stays where it is.
        out.pieces.push_back({&out.header, sizeof(out.header)});
        if (!cursor.take_dma(out.length, out.pieces)) {
            out.pieces.clear();
        }
    }
    return outgoing_.size();
}

/// Sends what was collected and gives it back to the driver. False if the backend is full: the
/// requests that it has not taken are in the queue again.
bool VirtioNet::send_collected(Queue& queue, size_t count) {
    std::array<NetBackend::Frame, kBatchSize> frames;
    size_t frame_count = 0;
    for (const Outgoing& out : outgoing_) {
        if (!out.pieces.empty()) {
            frames[frame_count++] = out.pieces;
        }
    }
    const auto sent = backend_->send(std::span(frames).first(frame_count));
    transmit_refused_.add(sent.refused);
    transmitted_frames_.add(sent.taken);

    size_t taken = 0;
    for (size_t i = 0; i < count; ++i) {
        const Outgoing& out = outgoing_[i];
        if (out.pieces.empty()) {
            transmit_invalid_.add(1);
        } else if (taken < sent.taken) {
            ++taken;
            transmitted_bytes_.add(out.length);
        } else {
            for (; i < count; ++i) {
                queue.undo_pop();
            }
            return false;
        }
        queue.push(out.chain, 0);
    }
    return true;
}

// ---------------------------------------------------------------------------------------------
// Control commands.

void VirtioNet::control() {
    if (!running()) {
        return;
    }
    Queue& queue = activation_->queues[kControlQueue];
    bool more = true;
    for (int i = 0; i < kCommandsAtOnce && more; ++i) {
        const auto chain = queue.pop();
        if (!chain) {
            more = queue.enable_notifications();
            continue;
        }
        Cursor command(memory_, chain->readable());
        Cursor answer(memory_, chain->writable());
        const uint8_t status = execute(command);
        queue.push(*chain, answer.write(status) ? sizeof(status) : 0);
    }
    activation_->driver->publish(kControlQueue);
    if (more) {
        activation_->driver->kick_later(kControlQueue);
    }
}

uint8_t VirtioNet::execute(Cursor& command) {
    virtio_net_ctrl_hdr header{};
    if (!command.read(header)) {
        return VIRTIO_NET_ERR;
    }
    bool done = false;
    if (header.class_ == VIRTIO_NET_CTRL_RX && negotiated(VIRTIO_NET_F_CTRL_RX)) {
        done = set_receive_mode(header.cmd, command);
    } else if (header.class_ == VIRTIO_NET_CTRL_MAC &&
               header.cmd == VIRTIO_NET_CTRL_MAC_TABLE_SET && negotiated(VIRTIO_NET_F_CTRL_RX)) {
        // One table of unicast addresses, one of multicast: nothing is filtered, so that they are
        // only checked.
        done = skip_mac_table(command) && skip_mac_table(command) && command.remaining() == 0;
    } else if (header.class_ == VIRTIO_NET_CTRL_MAC && header.cmd == VIRTIO_NET_CTRL_MAC_ADDR_SET &&
               negotiated(VIRTIO_NET_F_CTRL_MAC_ADDR)) {
        done = set_mac(command);
    } else if (header.class_ == VIRTIO_NET_CTRL_GUEST_OFFLOADS &&
               header.cmd == VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET &&
               negotiated(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS)) {
        done = set_guest_offloads(command);
    }
    return done ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
}

bool VirtioNet::set_receive_mode(uint8_t mode, Cursor& command) {
    uint8_t on = 0;
    if (mode >= 8 || (kReceiveModeBits >> mode & 1U) == 0 || !command.read(on) || on > 1) {
        return false;
    }
    const auto mask = static_cast<uint8_t>(1U << mode);
    receive_modes_ = static_cast<uint8_t>(on != 0 ? receive_modes_ | mask : receive_modes_ & ~mask);
    return true;
}

bool VirtioNet::set_mac(Cursor& command) {
    std::array<uint8_t, 6> mac{};
    if (!command.read(mac) || !is_unicast(mac)) {
        return false;
    }
    mac_ = mac;
    return true;
}

bool VirtioNet::set_guest_offloads(Cursor& command) {
    uint64_t offloads = 0;
    if (!command.read(offloads) || (offloads & ~(activation_->features & kGuestOffloadBits)) != 0) {
        return false;
    }
    guest_offloads_ = offloads;
    apply_guest_offloads();
    return true;
}

std::vector<std::byte> VirtioNet::save_state() const {
    State state;
    state.mac = mac_;
    state.receive_modes = receive_modes_;
    state.guest_offloads = guest_offloads_;
    for (const std::byte byte : std::span(buffer_).first(frame_length_)) {
        state.waiting_frame.push_back(std::to_integer<uint8_t>(byte));
    }
    return encode_state(state);
}

Result<void> VirtioNet::restore_state(ConstByteSpan bytes) {
    IVMM_ASSIGN(const auto state, decode_state<State>(bytes));
    if (!is_unicast(state.mac) || (state.receive_modes & ~kReceiveModeBits) != 0 ||
        (state.guest_offloads.value_or(0) & ~kGuestOffloadBits) != 0) {
        return fail("the network device's address, modes or offloads are impossible");
    }
    if (state.waiting_frame.size() > buffer_.size()) {
        return fail("a frame of {} bytes is too long", state.waiting_frame.size());
    }
    mac_ = state.mac;
    receive_modes_ = state.receive_modes;
    guest_offloads_ = state.guest_offloads;
    std::ranges::copy(std::as_bytes(std::span(state.waiting_frame)), buffer_.begin());
    frame_length_ = state.waiting_frame.size();
    driver_has_buffers_ = frame_length_ > 0;
    if (activation_) {
        apply_guest_offloads();
    }
    return {};
}

}  // namespace ivmm::virtio
