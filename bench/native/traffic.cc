// Traffic between two network namespaces, to measure what is between them.
// usage: traffic send INTERFACE MAC SECONDS    frames of 64 bytes, as fast as it goes
//        traffic serve ADDRESS                 answers the next two, until it is killed
//        traffic ping ADDRESS COUNT            prints median and p99 of the round trip, µs
//        traffic stream ADDRESS SECONDS        prints bytes a second of one TCP connection

#include <arpa/inet.h>
#include <fmt/core.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"

namespace ivmm {
namespace {

constexpr uint16_t kPort = 7;
constexpr size_t kFrame = 64;
constexpr size_t kAtOnce = 64;
constexpr int kWarmUp = 200;
constexpr size_t kChunk = size_t{256} << 10;

[[noreturn]] void give_up(const char* what) {
    fmt::print(stderr, "traffic: {}: {}\n", what, std::strerror(errno));
    std::exit(1);
}

UniqueFd open_socket(int family, int type, int protocol = 0) {
    UniqueFd fd(::socket(family, type | SOCK_CLOEXEC, protocol));
    if (!fd) {
        give_up("socket");
    }
    return fd;
}

sockaddr_in address(const std::string& text) {
    sockaddr_in result{};
    result.sin_family = AF_INET;
    result.sin_port = htons(kPort);
    ::inet_pton(AF_INET, text.c_str(), &result.sin_addr);
    return result;
}

const sockaddr* generic(const sockaddr_in& specific) {
    return reinterpret_cast<const sockaddr*>(&specific);
}

void send_frames(const std::string& interface, const std::string& mac, double seconds) {
    const UniqueFd fd = open_socket(AF_PACKET, SOCK_RAW);
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
    std::array<unsigned char, kFrame> frame{};
    std::sscanf(mac.c_str(), "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", frame.data(), &frame[1], &frame[2],
                &frame[3], &frame[4], &frame[5]);
    frame[6] = 2;
    frame[11] = 0x77;
    frame[12] = 0x88;  // of local experiments: no stack spends time on it
    frame[13] = 0xb5;
    iovec piece{frame.data(), frame.size()};
    std::array<mmsghdr, kAtOnce> messages{};
    for (mmsghdr& message : messages) {
        message.msg_hdr = {&to, sizeof(to), &piece, 1, nullptr, 0, 0};
    }
    const uint64_t end = clock_ns(CLOCK_MONOTONIC) + static_cast<uint64_t>(seconds * 1e9);
    while (clock_ns(CLOCK_MONOTONIC) < end) {
        if (::sendmmsg(fd.get(), messages.data(), messages.size(), 0) < 0 && errno != ENOBUFS) {
            give_up("sendmmsg");
        }
    }
}

void serve(const std::string& own) {
    const sockaddr_in here = address(own);
    const UniqueFd echo = open_socket(AF_INET, SOCK_DGRAM);
    const UniqueFd listener = open_socket(AF_INET, SOCK_STREAM);
    if (::bind(echo.get(), generic(here), sizeof(here)) != 0 ||
        ::bind(listener.get(), generic(here), sizeof(here)) != 0 ||
        ::listen(listener.get(), 4) != 0) {
        give_up("bind");
    }
    std::puts("ready");
    std::fflush(stdout);
    std::thread([&] {
        std::array<std::byte, 64> bytes;
        sockaddr_in from{};
        socklen_t length = sizeof(from);
        while (true) {
            const ssize_t n = ::recvfrom(echo.get(), bytes.data(), bytes.size(), 0,
                                         reinterpret_cast<sockaddr*>(&from), &length);
            ::sendto(echo.get(), bytes.data(), static_cast<size_t>(std::max<ssize_t>(n, 0)), 0,
                     generic(from), length);
        }
    }).detach();
    std::vector<std::byte> buffer(kChunk);
    while (true) {
        const UniqueFd stream(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        while (stream && ::read(stream.get(), buffer.data(), buffer.size()) > 0) {
        }
    }
}

void ping(const std::string& far, int count) {
    const UniqueFd fd = open_socket(AF_INET, SOCK_DGRAM);
    const sockaddr_in to = address(far);
    const timeval patience{1, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (::connect(fd.get(), generic(to), sizeof(to)) != 0) {
        give_up("connect");
    }
    std::array<std::byte, 18> bytes{};  // a frame of 60 bytes
    std::vector<double> times;
    for (int i = -kWarmUp; i < count; ++i) {
        const uint64_t begin = clock_ns(CLOCK_MONOTONIC);
        const bool answered = ::send(fd.get(), bytes.data(), bytes.size(), 0) > 0 &&
                              ::recv(fd.get(), bytes.data(), bytes.size(), 0) > 0;
        if (!answered && i >= 0) {
            give_up("no answer");
        }
        if (!answered) {
            ::usleep(10'000);  // the other end has only begun
        }
        if (i >= 0) {
            times.push_back(static_cast<double>(clock_ns(CLOCK_MONOTONIC) - begin) / 1000);
        }
    }
    std::sort(times.begin(), times.end());
    fmt::print("{:.3f} {:.3f}\n", times[times.size() / 2], times[times.size() * 99 / 100]);
}

void stream(const std::string& far, double seconds) {
    const UniqueFd fd = open_socket(AF_INET, SOCK_STREAM);
    const sockaddr_in to = address(far);
    if (::connect(fd.get(), generic(to), sizeof(to)) != 0) {
        give_up("connect");
    }
    const std::vector<std::byte> chunk(kChunk);
    uint64_t sent = 0;
    const uint64_t begin = clock_ns(CLOCK_MONOTONIC);
    while (static_cast<double>(clock_ns(CLOCK_MONOTONIC) - begin) < seconds * 1e9) {
        const ssize_t n = ::send(fd.get(), chunk.data(), chunk.size(), MSG_NOSIGNAL);
        if (n < 0) {
            give_up("send");
        }
        sent += static_cast<uint64_t>(n);
    }
    // What is still on its way counts when the other end has taken it.
    ::shutdown(fd.get(), SHUT_WR);
    std::byte last{};
    static_cast<void>(::read(fd.get(), &last, 1));
    fmt::print("{:.0f}\n", static_cast<double>(sent) * 1e9 /
                               static_cast<double>(clock_ns(CLOCK_MONOTONIC) - begin));
}

int run(const std::vector<std::string>& words) {
    const auto is = [&](const char* name, size_t count) {
        return !words.empty() && words[0] == name && words.size() == count;
    };
    if (is("send", 4)) {
        send_frames(words[1], words[2], std::atof(words[3].c_str()));
    } else if (is("serve", 2)) {
        serve(words[1]);
    } else if (is("ping", 3)) {
        ping(words[1], std::atoi(words[2].c_str()));
    } else if (is("stream", 3)) {
        stream(words[1], std::atof(words[2].c_str()));
    } else {
        fmt::print(stderr, "usage: traffic send | serve | ping | stream …\n");
        return 2;
    }
    return 0;
}

}  // namespace
}  // namespace ivmm

int main(int argc, char** argv) {
    return ivmm::run({argv + 1, argv + argc});
}
