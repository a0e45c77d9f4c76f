#include "vmm/peer/tls_stream.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <vector>

namespace ivmm::peer {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kBacklog = 16;

struct AddressesDeleter {
    void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, AddressesDeleter>;

Result<Addresses> look_up(const std::string& address, int flags) {
    IVMM_ASSIGN(const auto parts, parse_address(address));
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags;
    addrinfo* list = nullptr;
    if (const int code = ::getaddrinfo(parts.host.c_str(), parts.port.c_str(), &hints, &list);
        code != 0) {
        return fail_as(ErrorKind::kUsage, "'{}' is no address: {}", address, ::gai_strerror(code));
    }
    return Addresses(list);
}

std::string name_of(int socket) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    std::array<char, NI_MAXHOST> host{};
    std::array<char, NI_MAXSERV> port{};
    if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
        ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host.data(), host.size(),
                      port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return "a host that has gone";
    }
    return fmt::format("{}:{}", host.data(), port.data());
}

/// A host that does not answer any more is noticed, whoever is to speak next.
void set_up(int socket) {
    constexpr int kOn = 1;
    constexpr int kIdleSeconds = 4;
    constexpr int kBetweenSeconds = 2;
    constexpr int kProbes = 3;
    const auto stall = static_cast<unsigned>(TlsStream::kStall.count());
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &kOn, sizeof kOn);
    ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &kOn, sizeof kOn);
    ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &kIdleSeconds, sizeof kIdleSeconds);
    ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &kBetweenSeconds, sizeof kBetweenSeconds);
    ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &kProbes, sizeof kProbes);
    ::setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &stall, sizeof stall);
}

/// Waits a little until the other side has read what it was told, which a close with something
/// unread would throw away.
void let_read(int socket) {
    const auto end = Clock::now() + std::chrono::seconds(1);
    ::shutdown(socket, SHUT_WR);
    std::array<std::byte, 4096> unread{};
    while (true) {
        const auto left = std::chrono::ceil<TlsStream::Milliseconds>(end - Clock::now());
        pollfd ready{socket, POLLIN, 0};
        if (left.count() <= 0 || ::poll(&ready, 1, static_cast<int>(left.count())) <= 0 ||
            ::recv(socket, unread.data(), unread.size(), 0) <= 0) {
            return;
        }
    }
}

/// The public keys that are trusted.
using Pins = std::vector<CertificatePtr>;

Result<Pins> read_pins(const std::string& keys) {
    Pins pins;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(keys + "/peers", error), end;
         !error && entry != end; entry.increment(error)) {
        if (entry->path().extension() == ".pem") {
            IVMM_ASSIGN(auto pin, read_certificate(entry->path().string()));
            pins.push_back(std::move(pin));
        }
    }
    if (pins.empty()) {
        return fail_as(ErrorKind::kUsage,
                       "there is no other host's key in '{}/peers': put its public.pem there "
                       "(`ivmm keys` makes them)",
                       keys);
    }
    return pins;
}

/// In the place of OpenSSL's verification of chains: whether the key is one of the pins.
int verify(X509_STORE_CTX* store, void* argument) {
    const auto& pins = *static_cast<const Pins*>(argument);
    const X509* const certificate = X509_STORE_CTX_get0_cert(store);
    const EVP_PKEY* const key = certificate != nullptr ? X509_get0_pubkey(certificate) : nullptr;
    const bool known = key != nullptr && std::ranges::any_of(pins, [&](const auto& pin) {
                           return EVP_PKEY_eq(X509_get0_pubkey(pin.get()), key) == 1;
                       });
    if (!known) {
        X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
    }
    return known ? 1 : 0;
}

Result<SslContextPtr> make_context(const std::string& keys, const Pins& pins) {
    SslContextPtr context(SSL_CTX_new(TLS_method()));
    if (!context || SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) != 1) {
        return fail("no TLS 1.3: {}", openssl_error());
    }
    const std::string secret = keys + "/private.pem";
    if (SSL_CTX_use_certificate_file(context.get(), (keys + "/public.pem").c_str(),
                                     SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(context.get(), secret.c_str(), SSL_FILETYPE_PEM) != 1) {
        return fail_as(ErrorKind::kUsage,
                       "the key pair in '{}' cannot be used ({}); `ivmm keys {}` makes one", keys,
                       openssl_error(), keys);
    }
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    // OpenSSL does not change it.
    SSL_CTX_set_cert_verify_callback(context.get(), verify, const_cast<Pins*>(&pins));
    // Every connection shows its key anew.
    SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context.get(), 0);
    SSL_CTX_set_mode(context.get(),
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return context;
}

}  // namespace

Result<HostAndPort> parse_address(const std::string& address) {
    const size_t colon = address.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == address.size()) {
        return fail_as(ErrorKind::kUsage, "'{}' is not HOST:PORT", address);
    }
    HostAndPort parts{address.substr(0, colon), address.substr(colon + 1)};
    if (parts.host.front() == '[' && parts.host.back() == ']') {
        parts.host = parts.host.substr(1, parts.host.size() - 2);
    }
    // The resolver would take the number modulo 65536.
    const bool too_high = parts.port.find_first_not_of("0123456789") == std::string::npos &&
                          (parts.port.size() > 5 || std::stoul(parts.port) > UINT16_MAX);
    if (too_high) {
        return fail_as(ErrorKind::kUsage, "'{}' is no address: ports end at 65535", address);
    }
    return parts;
}

Result<UniqueFd> listen_at(const std::string& address) {
    IVMM_ASSIGN(const auto addresses, look_up(address, AI_PASSIVE));
    const addrinfo& at = *addresses;
    UniqueFd socket(::socket(at.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    constexpr int kOn = 1;
    if (!socket || ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &kOn, sizeof kOn) != 0 ||
        ::bind(socket.get(), at.ai_addr, at.ai_addrlen) != 0 ||
        ::listen(socket.get(), kBacklog) != 0) {
        return fail_errno("cannot listen at {}", address);
    }
    return socket;
}

Result<std::unique_ptr<TlsStream>> TlsStream::connect(const std::string& address,
                                                      const std::string& keys, int interrupt) {
    IVMM_ASSIGN(const auto addresses, look_up(address, 0));
    const addrinfo& at = *addresses;
    UniqueFd socket(::socket(at.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) {
        return fail_errno("cannot create a socket");
    }
    auto stream = std::unique_ptr<TlsStream>(new TlsStream(std::move(socket), address, interrupt));
    const int fd = stream->socket_.get();
    if (::connect(fd, at.ai_addr, at.ai_addrlen) != 0 && errno != EINPROGRESS) {
        return fail_errno("cannot connect to {}", address);
    }
    IVMM_ASSIGN(const bool answered, stream->wait_for(POLLOUT, Clock::now() + kStall));
    if (!answered) {
        return fail("cannot connect to {}: it does not answer", address);
    }
    int code = 0;
    socklen_t size = sizeof code;
    ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size);
    if (code != 0) {
        errno = code;
        return fail_errno("cannot connect to {}", address);
    }
    IVMM_TRY(stream->handshake(keys, false));
    return stream;
}

Result<std::unique_ptr<TlsStream>> TlsStream::accept(UniqueFd socket, const std::string& keys,
                                                     int interrupt) {
    const std::string name = name_of(socket.get());
    auto stream = std::unique_ptr<TlsStream>(new TlsStream(std::move(socket), name, interrupt));
    if (auto done = stream->handshake(keys, true); !done) {
        let_read(stream->socket_.get());
        return Unexpected{std::move(done).error()};
    }
    return stream;
}

TlsStream::~TlsStream() = default;

Result<void> TlsStream::handshake(const std::string& keys, bool as_server) {
    set_up(socket_.get());
    IVMM_ASSIGN(const auto pins, read_pins(keys));
    IVMM_ASSIGN(context_, make_context(keys, pins));
    ssl_.reset(SSL_new(context_.get()));
    if (!ssl_ || SSL_set_fd(ssl_.get(), socket_.get()) != 1) {
        return fail("no TLS connection: {}", openssl_error());
    }
    const Deadline deadline = Clock::now() + kStall;
    while (true) {
        ERR_clear_error();
        const int done = as_server ? SSL_accept(ssl_.get()) : SSL_connect(ssl_.get());
        if (done == 1) {
            break;
        }
        if (SSL_get_verify_result(ssl_.get()) == X509_V_ERR_CERT_REJECTED) {
            return fail("{} has a key that is not in '{}/peers'", name_, keys);
        }
        IVMM_TRY(wait(done, deadline));
    }
    const CertificatePtr peer(SSL_get1_peer_certificate(ssl_.get()));
    if (!peer) {
        return fail("{} has no key", name_);
    }
    peer_key_ = fingerprint(*peer);
    return {};
}

Result<bool> TlsStream::wait_for(short events, Deadline deadline) {
    while (true) {
        const auto left =
            std::max(Milliseconds{0}, std::chrono::ceil<Milliseconds>(deadline - Clock::now()));
        std::array<pollfd, 2> ready{pollfd{socket_.get(), events, 0},
                                    pollfd{interrupt_, POLLIN, 0}};
        const int n =
            ::poll(ready.data(), ready.size(), static_cast<int>(std::min(left, kStall).count()));
        if (n < 0 && errno != EINTR) {
            return fail_errno("cannot wait for {}", name_);
        }
        if (n > 0 && ready[1].revents != 0) {
            return fail("the connection to {} was given up", name_);
        }
        if (n > 0) {
            return true;
        }
        if (n == 0 && left <= kStall) {
            return false;
        }
    }
}

Result<void> TlsStream::wait(int outcome, Deadline deadline) {
    const int saved = errno;
    short events = 0;
    switch (SSL_get_error(ssl_.get(), outcome)) {
        case SSL_ERROR_WANT_READ:
            events = POLLIN;
            break;
        case SSL_ERROR_WANT_WRITE:
            events = POLLOUT;
            break;
        case SSL_ERROR_ZERO_RETURN:
            return fail("{} has closed the connection", name_);
        case SSL_ERROR_SYSCALL:
            errno = saved;
            return saved != 0 ? fail_errno("the connection to {} is cut", name_)
                              : fail("{} has closed the connection", name_);
        default: {
            const auto code = ERR_peek_last_error();
            if (ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
                ERR_clear_error();
                return fail("{} has closed the connection", name_);
            }
            if (ERR_GET_REASON(code) >= SSL_AD_REASON_OFFSET) {
                return fail(
                    "{} refuses this host ({}): does it have this host's public.pem in its peers?",
                    name_, openssl_error());
            }
            return fail("the connection to {} fails: {}", name_, openssl_error());
        }
    }
    IVMM_ASSIGN(const bool ready, wait_for(events, deadline));
    if (!ready) {
        return fail("{} does not answer", name_);
    }
    return {};
}

Result<void> TlsStream::write(ConstByteSpan data) {
    while (!data.empty()) {
        ERR_clear_error();
        constexpr size_t kMost = size_t{1} << 20;
        const int n =
            SSL_write(ssl_.get(), data.data(), static_cast<int>(std::min(data.size(), kMost)));
        if (n > 0) {
            bytes_written_ += static_cast<uint64_t>(n);
            data = data.subspan(static_cast<size_t>(n));
        } else {
            // As long as something moves, a slow link is only slow.
            IVMM_TRY(wait(n, Clock::now() + kStall));
        }
    }
    return {};
}

Result<void> TlsStream::read(ByteSpan out, Deadline deadline) {
    while (!out.empty()) {
        ERR_clear_error();
        constexpr size_t kMost = size_t{1} << 20;
        const int n =
            SSL_read(ssl_.get(), out.data(), static_cast<int>(std::min(out.size(), kMost)));
        if (n > 0) {
            out = out.subspan(static_cast<size_t>(n));
        } else {
            IVMM_TRY(wait(n, deadline));
        }
    }
    return {};
}

Result<bool> TlsStream::wait_readable(Milliseconds patience) {
    if (SSL_has_pending(ssl_.get()) == 1) {
        return true;
    }
    return wait_for(POLLIN, Clock::now() + patience);
}

}  // namespace ivmm::peer
