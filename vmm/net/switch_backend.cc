#include "vmm/net/switch_backend.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"

namespace ivmm {
namespace {

constexpr std::chrono::seconds kAgain{1};
/// Other devices wait meanwhile.
constexpr std::chrono::milliseconds kShort{100};

}  // namespace

struct SwitchBackend::Cable {
    Cable(net::SharedMemory memory_, net::CableEnd& end)
        : memory(std::move(memory_)),
          socket(std::move(end.socket)),
          wakes_switch(EventFd::adopt(std::move(end.wakes_switch))),
          wakes_us(EventFd::adopt(std::move(end.wakes_guest))),
          out(memory.to_switch()),
          in(memory.from_switch()) {}

    net::SharedMemory memory;
    UniqueFd socket;
    EventFd wakes_switch;
    EventFd wakes_us;
    net::RingProducer out;
    net::RingConsumer in;
    EventLoop::Watch socket_watch;
    EventLoop::Watch frames_watch;
};

SwitchBackend::SwitchBackend(EventLoop& loop, Place place)
    : loop_(loop), place_(std::move(place)) {}

SwitchBackend::~SwitchBackend() = default;

Result<std::unique_ptr<SwitchBackend>> SwitchBackend::create(EventLoop& loop, net::CableEnd end,
                                                             Place place) {
    std::unique_ptr<SwitchBackend> self(new SwitchBackend(loop, std::move(place)));
    IVMM_ASSIGN(self->timer_, Timer::create(loop, [raw = self.get()] { raw->try_again(); }));
    IVMM_TRY(self->plug(std::move(end)));
    return self;
}

Result<void> SwitchBackend::plug(net::CableEnd end) {
    IVMM_ASSIGN(auto memory, net::SharedMemory::map(end.memory));
    auto cable = std::make_unique<Cable>(std::move(memory), end);
    IVMM_ASSIGN(cable->frames_watch,
                loop_.watch(cable->wakes_us.fd(), EPOLLIN, [this](uint32_t) { on_wake(); }));
    IVMM_ASSIGN(cable->socket_watch, loop_.watch(cable->socket.get(), EPOLLIN, [this](uint32_t) {
        const auto message = net::receive_message(cable_->socket.get());
        if (!message) {
            lose();
        }
    }));
    cable_ = std::move(cable);
    tell_offloads();
    arm();
    return {};
}

void SwitchBackend::lose() {
    log::warning("the switch has gone; the guest's network is cut off{}",
                 place_.path.empty() ? "" : " until it is back");
    cable_.reset();
    if (!place_.path.empty()) {
        timer_.set_every(kAgain);
    }
    if (wants_send_ && on_sendable_) {
        on_sendable_();  // what waits is lost
    }
}

void SwitchBackend::try_again() {
    if (cable_ != nullptr || ::access(place_.path.c_str(), F_OK) != 0) {
        return;
    }
    auto end = net::connect_cable(place_.path, place_.port, place_.mac, kShort);
    if (end && plug(std::move(*end))) {
        timer_.stop();
        log::info("the switch is back");
        on_wake();
    }
}

void SwitchBackend::set_callbacks(Callback on_receivable, Callback on_sendable) {
    on_receivable_ = std::move(on_receivable);
    on_sendable_ = std::move(on_sendable);
}

void SwitchBackend::want_receive(bool want) {
    wants_receive_ = want;
    arm();
}

void SwitchBackend::want_send(bool want) {
    wants_send_ = want;
    arm();
}

/// Asks to be woken for what is wanted; if it is there already, this side wakes itself.
void SwitchBackend::arm() {
    if (cable_ == nullptr) {
        return;
    }
    if (cable_->in.release()) {
        cable_->wakes_switch.signal();
    }
    if ((wants_receive_ && !cable_->in.sleep()) || (wants_send_ && !cable_->out.sleep())) {
        cable_->wakes_us.signal();
    }
}

void SwitchBackend::on_wake() {
    cable_->wakes_us.drain();
    if (wants_send_ && on_sendable_) {
        on_sendable_();
    }
    if (wants_receive_ && on_receivable_) {
        on_receivable_();
    }
    if (cable_ == nullptr) {
        return;
    }
    if (cable_->in.broken() || cable_->out.broken()) {
        lose();
        return;
    }
    arm();
}

NetBackend::Sent SwitchBackend::send(std::span<const Frame> frames) {
    Sent sent;
    if (cable_ == nullptr) {
        return {.taken = frames.size(), .refused = frames.size()};
    }
    for (const Frame& frame : frames) {
        size_t length = 0;
        for (const iovec& piece : frame.subspan(1)) {
            length += piece.iov_len;
        }
        if (length > net::kMaxFrameLength) {
            ++sent.taken;
            ++sent.refused;
            continue;
        }
        const auto room = cable_->out.reserve(length);
        if (!room) {
            break;
        }
        net::VnetHeader vnet;
        std::memcpy(&vnet, frame[0].iov_base, std::min(frame[0].iov_len, sizeof(vnet)));
        size_t done = 0;
        for (const iovec& piece : frame.subspan(1)) {
            std::memcpy(room->data() + done, piece.iov_base, piece.iov_len);
            done += piece.iov_len;
        }
        cable_->out.push(vnet);
        ++sent.taken;
    }
    if (cable_->out.publish()) {
        cable_->wakes_switch.signal();
    }
    return sent;
}

std::optional<size_t> SwitchBackend::receive(std::span<const iovec> buffer) {
    if (cable_ == nullptr) {
        return std::nullopt;
    }
    const auto record = cable_->in.next();
    if (!record) {
        return std::nullopt;
    }
    std::array<ConstByteSpan, 2> parts{bytes_of(record->vnet), record->frame};
    size_t place = 0;  // in the piece
    auto piece = buffer.begin();
    for (ConstByteSpan part : parts) {
        while (!part.empty() && piece != buffer.end()) {
            const size_t n = std::min(part.size(), piece->iov_len - place);
            std::memcpy(static_cast<std::byte*>(piece->iov_base) + place, part.data(), n);
            part = part.subspan(n);
            place += n;
            if (place == piece->iov_len) {
                ++piece;
                place = 0;
            }
        }
    }
    return sizeof(record->vnet) + record->frame.size();
}

Result<void> SwitchBackend::set_offloads(const NetOffloads& offloads) {
    offloads_ = {offloads.checksum, offloads.tso4, offloads.tso6, offloads.tso_ecn};
    tell_offloads();
    return {};
}

void SwitchBackend::tell_offloads() {
    if (cable_ == nullptr) {
        return;
    }
    net::CableMessage message;
    message.type = net::CableMessage::kOffloads;
    message.offloads = net::to_bits(offloads_);
    net::send_message(cable_->socket.get(), message);
}

}  // namespace ivmm
