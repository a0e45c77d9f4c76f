#include "net/cable.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>

namespace ivmm::net {
namespace {

constexpr size_t kMaxDescriptors = 3;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr int kBacklog = 64;

Result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        return fail_as(ErrorKind::kHost, "the socket's path '{}' is longer than {} bytes", path,
                       sizeof address.sun_path - 1);
    }
    std::copy(path.begin(), path.end(), address.sun_path);
    return address;
}

const sockaddr* generic(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

template <size_t N>
std::string text_in(const std::array<char, N>& field) {
    return {field.data(), ::strnlen(field.data(), N)};
}

/// Takes descriptors out of a control message; those that are too many are closed.
void take_descriptors(msghdr& header, std::span<UniqueFd> descriptors) {
    size_t taken = 0;
    for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr;
         part = CMSG_NXTHDR(&header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
            UniqueFd owned(fd);
            if (taken < descriptors.size()) {
                descriptors[taken++] = std::move(owned);
            }
        }
    }
}

}  // namespace

uint32_t to_bits(const Offloads& offloads) {
    return (offloads.checksum ? 1U : 0U) | (offloads.tso4 ? 2U : 0U) | (offloads.tso6 ? 4U : 0U) |
           (offloads.tso_ecn ? 8U : 0U);
}

Offloads offloads_from_bits(uint32_t bits) {
    return {(bits & 1U) != 0, (bits & 2U) != 0, (bits & 4U) != 0, (bits & 8U) != 0};
}

Result<UniqueFd> SharedMemory::create() {
    UniqueFd file(::memfd_create("ivmm-cable", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!file || ::ftruncate(file.get(), kRingPairBytes) != 0 ||
        ::fcntl(file.get(), F_ADD_SEALS, kSeals) != 0) {
        return fail_errno("cannot make the memory of a cable");
    }
    return file;
}

Result<SharedMemory> SharedMemory::map(const UniqueFd& file) {
    struct stat info {};
    const int seals = ::fcntl(file.get(), F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || ::fstat(file.get(), &info) != 0 ||
        info.st_size != static_cast<off_t>(kRingPairBytes)) {
        return fail("the memory of a cable is not what it should be");
    }
    void* const memory =
        ::mmap(nullptr, kRingPairBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (memory == MAP_FAILED) {
        return fail_errno("cannot map the memory of a cable");
    }
    return SharedMemory(static_cast<std::byte*>(memory));
}

SharedMemory::~SharedMemory() {
    if (memory_ != nullptr) {
        ::munmap(memory_, kRingPairBytes);
    }
}

bool send_message(int socket, const CableMessage& message, std::span<const int> descriptors) {
    iovec piece{const_cast<CableMessage*>(&message), sizeof(message)};  // NOLINT(*-const-cast)
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxDescriptors * sizeof(int))> control{};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    if (!descriptors.empty()) {
        header.msg_control = control.data();
        header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
        cmsghdr* const part = CMSG_FIRSTHDR(&header);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(descriptors.size_bytes());
        std::memcpy(CMSG_DATA(part), descriptors.data(), descriptors.size_bytes());
    }
    return ::sendmsg(socket, &header, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof(message));
}

Result<std::optional<CableMessage>> receive_message(int socket, std::span<UniqueFd> descriptors) {
    CableMessage message;
    iovec piece{&message, sizeof(message)};
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxDescriptors * sizeof(int))> control{};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t n = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return std::optional<CableMessage>();
    }
    if (n < 0) {
        return fail_errno("the connection is broken");
    }
    take_descriptors(header, descriptors);
    if (n != static_cast<ssize_t>(sizeof(message)) || (header.msg_flags & MSG_TRUNC) != 0 ||
        message.magic != CableMessage::kMagic || message.version != CableMessage::kVersion) {
        return n == 0 ? fail("the peer has gone") : fail("the peer speaks another language");
    }
    return std::optional(message);
}

Result<CableEnd> connect_cable(const std::string& path, const std::string& port,
                               const MacAddress& mac, std::chrono::milliseconds patience) {
    CableMessage hello;
    if (port.size() >= hello.port.size()) {
        return fail_as(ErrorKind::kUsage, "the port's name '{}' is longer than {} characters", port,
                       hello.port.size() - 1);
    }
    hello.type = CableMessage::kHello;
    hello.mac = mac;
    std::copy(port.begin(), port.end(), hello.port.begin());
    IVMM_ASSIGN(const auto address, address_of(path));
    CableEnd end;
    end.socket.reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (!end.socket) {
        return fail_errno("cannot create a socket");
    }
    const timeval timeout{patience.count() / 1000, patience.count() % 1000 * 1000};
    ::setsockopt(end.socket.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    ::setsockopt(end.socket.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (::connect(end.socket.get(), generic(address), sizeof address) != 0) {
        auto error = fail_errno("no switch listens at '{}'", path);
        error.error.kind = ErrorKind::kHost;
        return error;
    }
    if (!send_message(end.socket.get(), hello)) {
        return fail_errno("cannot talk to the switch at '{}'", path);
    }
    std::array<UniqueFd, kMaxDescriptors> descriptors;
    IVMM_ASSIGN(const auto answer, receive_message(end.socket.get(), descriptors));
    if (!answer) {
        return fail("the switch at '{}' does not answer", path);
    }
    if (answer->type == CableMessage::kRefused) {
        return fail("the switch refuses: {}", text_in(answer->error));
    }
    if (answer->type != CableMessage::kWelcome || !descriptors[2]) {
        return fail("the switch at '{}' answers something else", path);
    }
    ::fcntl(end.socket.get(), F_SETFL, O_NONBLOCK);
    end.memory = std::move(descriptors[0]);
    end.wakes_switch = std::move(descriptors[1]);
    end.wakes_guest = std::move(descriptors[2]);
    return end;
}

Result<UniqueFd> listen_for_cables(const std::string& path) {
    IVMM_ASSIGN(const auto address, address_of(path));
    UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket) {
        return fail_errno("cannot create a socket");
    }
    ::fchmod(socket.get(), 0600);
    if (::bind(socket.get(), generic(address), sizeof address) != 0 ||
        ::listen(socket.get(), kBacklog) != 0) {
        return fail_errno("cannot listen at '{}'", path);
    }
    return socket;
}

}  // namespace ivmm::net
