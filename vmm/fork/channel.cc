#include "vmm/fork/channel.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace ivmm {
namespace {

struct Header {
    MessageType type{};
    uint32_t length = 0;
};

constexpr size_t kMaxDescriptors = 8;

}  // namespace

Result<void> Channel::send_bytes(MessageType type, ConstByteSpan payload,
                                 const std::vector<int>& descriptors) {
    const Header header{type, static_cast<uint32_t>(payload.size())};
    std::vector<std::byte> bytes(sizeof header + payload.size());
    std::memcpy(bytes.data(), &header, sizeof header);
    std::copy(payload.begin(), payload.end(), bytes.begin() + sizeof header);

    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxDescriptors * sizeof(int))> control{};
    size_t sent = 0;
    while (sent < bytes.size()) {
        iovec piece{bytes.data() + sent, bytes.size() - sent};
        msghdr message{};
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        if (sent == 0 && !descriptors.empty()) {
            const size_t size = descriptors.size() * sizeof(int);
            message.msg_control = control.data();
            message.msg_controllen = CMSG_SPACE(size);
            cmsghdr* const rights = CMSG_FIRSTHDR(&message);
            rights->cmsg_level = SOL_SOCKET;
            rights->cmsg_type = SCM_RIGHTS;
            rights->cmsg_len = CMSG_LEN(size);
            std::memcpy(CMSG_DATA(rights), descriptors.data(), size);
        }
        const ssize_t n = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            return fail_errno("cannot send to {}", peer_);
        }
        sent += n > 0 ? static_cast<size_t>(n) : 0;
    }
    return {};
}

Result<void> Channel::read(ByteSpan out, Deadline deadline, std::vector<UniqueFd>* descriptors) {
    while (!out.empty()) {
        // In portions that poll(2) can count.
        constexpr Milliseconds kPortion = std::chrono::hours(24);
        const auto left = std::min(
            kPortion, std::chrono::ceil<Milliseconds>(deadline - std::chrono::steady_clock::now()));
        pollfd ready{socket_.get(), POLLIN, 0};
        const int n = left.count() > 0 ? ::poll(&ready, 1, static_cast<int>(left.count())) : 0;
        if (n < 0 && errno != EINTR) {
            return fail_errno("cannot wait for {}", peer_);
        }
        if (n == 0 && left < kPortion) {
            return fail("{} does not answer", peer_);
        }
        if (n <= 0) {
            continue;
        }
        alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxDescriptors * sizeof(int))> control{};
        iovec piece{out.data(), out.size()};
        msghdr message{};
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) {
            continue;
        }
        if (got < 0 && errno != ECONNRESET) {
            return fail_errno("cannot hear from {}", peer_);
        }
        if (got <= 0) {
            return fail("{} has ended", peer_);
        }
        for (cmsghdr* rights = CMSG_FIRSTHDR(&message); rights != nullptr;
             rights = CMSG_NXTHDR(&message, rights)) {
            if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) {
                continue;
            }
            const size_t count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (size_t i = 0; i < count; ++i) {
                int fd = -1;
                std::memcpy(&fd, CMSG_DATA(rights) + i * sizeof fd, sizeof fd);
                UniqueFd owned(fd);
                if (descriptors != nullptr) {
                    descriptors->push_back(std::move(owned));
                }
            }
        }
        out = out.subspan(static_cast<size_t>(got));
    }
    return {};
}

Result<std::vector<std::byte>> Channel::receive_bytes(MessageType type, Milliseconds patience,
                                                      std::vector<UniqueFd>* descriptors) {
    const Deadline deadline = std::chrono::steady_clock::now() + patience;
    Header header;
    IVMM_TRY(read(writable_bytes_of(header), deadline, descriptors));
    if (header.length > kMaxPayload) {
        return fail("{} sends {} bytes at once", peer_, header.length);
    }
    std::vector<std::byte> payload(header.length);
    IVMM_TRY(read(payload, deadline, descriptors));
    if (header.type == MessageType::kFailed && type != MessageType::kFailed) {
        IVMM_ASSIGN(const auto failed, decode_state<FailedMessage>(payload));
        return fail("{}", failed.reason);
    }
    if (header.type != type) {
        return fail("{} sends message {} where {} was expected", peer_,
                    static_cast<uint32_t>(header.type), static_cast<uint32_t>(type));
    }
    return payload;
}

}  // namespace ivmm
