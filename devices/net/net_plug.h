#pragma once

#include <memory>

#include "devices/net/net_backend.h"

namespace ivmm {

/// A socket for a network cable. Without one, everything that is sent is lost and nothing comes,
/// as with a switch that forwards nothing: the link stays up. Device loop only.
class NetPlug final : public NetBackend {
 public:
    /// Puts a cable in the place of the one before, if any; null: none.
    Result<void> plug(std::unique_ptr<NetBackend> cable);

    void set_callbacks(Callback on_receivable, Callback on_sendable) override;
    void want_receive(bool want) override;
    void want_send(bool want) override;
    Sent send(std::span<const Frame> frames) override;
    std::optional<size_t> receive(std::span<const iovec> buffer) override;
    Result<void> set_offloads(const NetOffloads& offloads) override;

 private:
    std::unique_ptr<NetBackend> cable_;
    Callback on_receivable_;
    Callback on_sendable_;
    bool wants_receive_ = false;
    bool wants_send_ = false;
    NetOffloads offloads_;
};

}  // namespace ivmm
