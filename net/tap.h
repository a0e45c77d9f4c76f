#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace ivmm {

/// An IPv4 address of the host with the length of its network's prefix. Network byte order.
struct HostAddress {
    uint32_t address = 0;
    uint8_t prefix_length = 0;

    bool operator==(const HostAddress&) const = default;
};

/// "10.0.0.1/24". A usage error if it is not of that form.
Result<HostAddress> parse_host_address(std::string_view text);

/// What the reader of a TAP is able to handle itself; the terms are those of TUNSETOFFLOAD.
struct TapOffloads {
    bool checksum = false;
    bool tso4 = false;
    bool tso6 = false;
    bool tso_ecn = false;
};

/// A TAP device of the host's kernel (Linux, Documentation/networking/tuntap.rst). Frames have a
/// virtio_net_hdr_v1 (12 bytes) in front. The descriptor is non-blocking; a read or write
/// transfers one frame.
class Tap {
 public:
    /// Creates a device that vanishes with the descriptor; it is down and has no address. A usage
    /// error if the name is impossible or taken.
    static Result<Tap> create(const std::string& name);
    /// Opens a device that is there and that nobody uses; leaves its addresses and flags alone.
    static Result<Tap> attach(const std::string& name);

    int fd() const { return fd_.get(); }
    const std::string& name() const { return name_; }

    Result<void> set_host_address(const HostAddress& address);
    Result<void> bring_up();
    Result<void> set_offloads(const TapOffloads& offloads);
    /// The link address of the host's end.
    Result<std::array<uint8_t, 6>> hardware_address() const;

 private:
    Tap(UniqueFd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}

    UniqueFd fd_;
    std::string name_;
};

}  // namespace ivmm
