#include "devices/net/net_plug.h"

#include <utility>

namespace ivmm {

Result<void> NetPlug::plug(std::unique_ptr<NetBackend> cable) {
    if (cable) {
        IVMM_TRY(cable->set_offloads(offloads_));
        cable->set_callbacks(on_receivable_, on_sendable_);
        cable->want_receive(wants_receive_);
        cable->want_send(wants_send_);
    }
    cable_ = std::move(cable);
    return {};
}

void NetPlug::set_callbacks(Callback on_receivable, Callback on_sendable) {
    on_receivable_ = std::move(on_receivable);
    on_sendable_ = std::move(on_sendable);
    if (cable_) {
        cable_->set_callbacks(on_receivable_, on_sendable_);
    }
}

void NetPlug::want_receive(bool want) {
    wants_receive_ = want;
    if (cable_) {
        cable_->want_receive(want);
    }
}

void NetPlug::want_send(bool want) {
    wants_send_ = want;
    if (cable_) {
        cable_->want_send(want);
    }
}

NetBackend::Sent NetPlug::send(std::span<const Frame> frames) {
    return cable_ ? cable_->send(frames) : Sent{frames.size(), 0};
}

std::optional<size_t> NetPlug::receive(std::span<const iovec> buffer) {
    return cable_ ? cable_->receive(buffer) : std::nullopt;
}

Result<void> NetPlug::set_offloads(const NetOffloads& offloads) {
    offloads_ = offloads;
    return cable_ ? cable_->set_offloads(offloads) : Result<void>();
}

}  // namespace ivmm
