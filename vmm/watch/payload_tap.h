#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/event_loop.h"
#include "vmm/watch/alert.h"

namespace ivmm::watch {

/// The alert about a frame to one of the guest's addresses with one of the texts in what TCP or UDP
/// carries. Each frame is looked at alone: a text that is cut in two is not found. Source:
/// "payload". Safe for any bytes.
std::optional<Alert> find_payload(ConstByteSpan frame, std::span<const std::string> payloads,
                                  std::span<const net::Prefix> home);

/// Gets the frames of a switch's mirror port (or of any interface). On the loop's thread.
class PayloadTap {
 public:
    using Take = std::function<void(ConstByteSpan frame)>;

    /// Errors: there is no such interface, or this user may not do that.
    static Result<std::unique_ptr<PayloadTap>> open(EventLoop& loop, const std::string& interface,
                                                    Take take);

 private:
    PayloadTap(UniqueFd socket, Take take) : socket_(std::move(socket)), take_(std::move(take)) {}
    void drain();

    UniqueFd socket_;
    const Take take_;
    std::vector<std::byte> frame_;
    EventLoop::Watch watch_;
};

}  // namespace ivmm::watch
