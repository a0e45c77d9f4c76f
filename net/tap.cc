#include "net/tap.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/bytes.h"

namespace ivmm {

namespace {

constexpr const char* kCloneDevice = "/dev/net/tun";
constexpr int kHeaderLength = 12;  // of a virtio_net_hdr_v1
constexpr const char* kNeedsPrivilege =
    "needs the capability CAP_NET_ADMIN (run as root, or in a "
    "network namespace of your own)";

Result<void> check_name(const std::string& name) {
    if (name.size() >= IFNAMSIZ) {
        return fail_as(ErrorKind::kUsage, "TAP name '{}' is longer than {} characters", name,
                       IFNAMSIZ - 1);
    }
    // '%' would make the kernel choose a number.
    const bool characters = std::ranges::all_of(name, [](char c) {
        return std::isgraph(static_cast<unsigned char>(c)) != 0 && c != '/' && c != ':' && c != '%';
    });
    if (name.empty() || name == "." || name == ".." || !characters) {
        return fail_as(ErrorKind::kUsage, "'{}' is not a name that a TAP can have", name);
    }
    return {};
}

ifreq request_for(const std::string& name) {
    ifreq request{};
    std::ranges::copy(name, request.ifr_name);  // shorter than the field: check_name()
    return request;
}

Result<UniqueFd> open_clone_device() {
    UniqueFd fd(::open(kCloneDevice, O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!fd) {
        auto error = fail_errno("cannot open {} for a TAP", kCloneDevice);
        error.error.kind = ErrorKind::kHost;
        if (error.error.code == ENOENT || error.error.code == ENODEV) {
            error.error.message += " (load the kernel module 'tun')";
        }
        return error;
    }
    return fd;
}

/// Binds the descriptor to the device and sets the frame format. errno tells why not.
bool bind_device(const UniqueFd& fd, const std::string& name, int more_flags) {
    ifreq request = request_for(name);
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | more_flags);
    int header_length = kHeaderLength;
    return ::ioctl(fd.get(), TUNSETIFF, &request) == 0 &&
           ::ioctl(fd.get(), TUNSETVNETHDRSZ, &header_length) == 0;
}

Unexpected no_privilege(std::string_view what, const std::string& name) {
    return fail_as(ErrorKind::kHost, "{} TAP '{}' {}", what, name, kNeedsPrivilege);
}

/// A socket to configure interfaces through.
Result<UniqueFd> configuration_socket() {
    UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd) {
        return fail_errno("cannot open a socket");
    }
    return fd;
}

sockaddr internet_address(uint32_t address) {
    sockaddr_in internet{};
    internet.sin_family = AF_INET;
    internet.sin_addr.s_addr = address;
    sockaddr any{};
    static_assert(sizeof(any) == sizeof(internet));
    std::memcpy(&any, &internet, sizeof(any));
    return any;
}

}  // namespace

Result<HostAddress> parse_host_address(std::string_view text) {
    const auto slash = text.find('/');
    HostAddress result;
    if (slash != std::string_view::npos) {
        const std::string address(text.substr(0, slash));
        const auto prefix = text.substr(slash + 1);
        unsigned length = 0;
        const auto [end, error] =
            std::from_chars(prefix.data(), prefix.data() + prefix.size(), length);
        if (error == std::errc() && end == prefix.data() + prefix.size() && length >= 1 &&
            length <= 32 && ::inet_pton(AF_INET, address.c_str(), &result.address) == 1) {
            result.prefix_length = static_cast<uint8_t>(length);
            return result;
        }
    }
    return fail_as(ErrorKind::kUsage,
                   "'{}' is not an IPv4 address with a prefix length, such as 10.0.0.1/24", text);
}

Result<Tap> Tap::create(const std::string& name) {
    IVMM_TRY(check_name(name));
    IVMM_ASSIGN(auto fd, open_clone_device());
    if (::if_nametoindex(name.c_str()) != 0) {
        // Said before the kernel is asked: without privileges it would only complain of those.
        errno = EBUSY;
    } else if (bind_device(fd, name, IFF_TUN_EXCL)) {
        return Tap(std::move(fd), name);
    }
    switch (errno) {
        case EBUSY:
        case EEXIST:
            return fail_as(ErrorKind::kUsage, "TAP '{}' exists already; to use it, add ',existing'",
                           name);
        case EPERM:
            return no_privilege("creating", name);
        default:
            return fail_errno("cannot create TAP '{}'", name);
    }
}

Result<Tap> Tap::attach(const std::string& name) {
    IVMM_TRY(check_name(name));
    const unsigned index = ::if_nametoindex(name.c_str());
    const auto missing = [&] {
        return fail_as(ErrorKind::kUsage,
                       "there is no TAP '{}'; to have it created, leave out ',existing'", name);
    };
    if (index == 0) {
        return missing();
    }
    IVMM_ASSIGN(auto fd, open_clone_device());
    if (!bind_device(fd, name, 0)) {
        switch (errno) {
            case EBUSY:
                return fail_as(ErrorKind::kUsage, "TAP '{}' is in use by another program", name);
            case EINVAL:
                return fail_as(ErrorKind::kUsage, "'{}' is not a TAP with a single queue", name);
            case EPERM:
                return fail_as(ErrorKind::kHost,
                               "using TAP '{}' {}, or to be the user it was created for", name,
                               kNeedsPrivilege);
            default:
                return fail_errno("cannot use TAP '{}'", name);
        }
    }
    if (::if_nametoindex(name.c_str()) != index) {
        return missing();  // it went away in between, and the kernel has made a new one
    }
    return Tap(std::move(fd), name);
}

Result<void> Tap::set_host_address(const HostAddress& address) {
    IVMM_ASSIGN(const auto socket, configuration_socket());
    ifreq request = request_for(name_);
    request.ifr_addr = internet_address(address.address);
    if (::ioctl(socket.get(), SIOCSIFADDR, &request) != 0) {
        return fail_errno("cannot set the address of TAP '{}'", name_);
    }
    request.ifr_netmask = internet_address(htonl(~uint32_t{0} << (32 - address.prefix_length)));
    if (::ioctl(socket.get(), SIOCSIFNETMASK, &request) != 0) {
        return fail_errno("cannot set the network mask of TAP '{}'", name_);
    }
    return {};
}

Result<void> Tap::bring_up() {
    IVMM_ASSIGN(const auto socket, configuration_socket());
    ifreq request = request_for(name_);
    if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) {
        return fail_errno("cannot read the flags of TAP '{}'", name_);
    }
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) {
        return fail_errno("cannot bring up TAP '{}'", name_);
    }
    return {};
}

Result<void> Tap::set_offloads(const TapOffloads& offloads) {
    unsigned flags = 0;
    flags |= offloads.checksum ? TUN_F_CSUM : 0U;
    flags |= offloads.tso4 ? TUN_F_TSO4 : 0U;
    flags |= offloads.tso6 ? TUN_F_TSO6 : 0U;
    flags |= offloads.tso_ecn ? TUN_F_TSO_ECN : 0U;
    if (::ioctl(fd_.get(), TUNSETOFFLOAD, flags) != 0) {
        return fail_errno("cannot set the offloads of TAP '{}'", name_);
    }
    return {};
}

Result<std::array<uint8_t, 6>> Tap::hardware_address() const {
    IVMM_ASSIGN(const auto socket, configuration_socket());
    ifreq request = request_for(name_);
    if (::ioctl(socket.get(), SIOCGIFHWADDR, &request) != 0) {
        return fail_errno("cannot read the link address of TAP '{}'", name_);
    }
    std::array<uint8_t, 6> address{};
    std::memcpy(address.data(), request.ifr_hwaddr.sa_data, address.size());
    return address;
}

}  // namespace ivmm
