#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/peer/openssl.h"

namespace ivmm::peer {

/// A TLS 1.3 connection to a host whose key is known, over TCP. One thread at a time.
///
/// Every call that waits ends with an error when nothing moves for kStall, when the other side has
/// gone, or when `interrupt` becomes readable.
class TlsStream {
 public:
    using Milliseconds = std::chrono::milliseconds;
    using Deadline = std::chrono::steady_clock::time_point;
    /// How long a link may stand still before it counts as cut.
    static constexpr Milliseconds kStall{10'000};

    /// To "HOST:PORT"; `keys`: the folder (keys.h); `interrupt`: a descriptor of the caller's, or
    /// -1. Errors: nobody listens there, or somebody with another key.
    static Result<std::unique_ptr<TlsStream>> connect(const std::string& address,
                                                      const std::string& keys, int interrupt);
    /// Of a connection that was accepted. Errors: its other side has not one of the keys.
    static Result<std::unique_ptr<TlsStream>> accept(UniqueFd socket, const std::string& keys,
                                                     int interrupt);
    TlsStream(const TlsStream&) = delete;
    TlsStream& operator=(const TlsStream&) = delete;
    ~TlsStream();

    /// Whom it leads to, for messages: "10.0.0.2:7000".
    const std::string& name() const { return name_; }
    /// The fingerprint of the other side's key: always the same for the same host.
    const std::string& peer_key() const { return peer_key_; }
    void set_interrupt(int interrupt) { interrupt_ = interrupt; }

    Result<void> write(ConstByteSpan data);
    /// All of `out`.
    Result<void> read(ByteSpan out, Deadline deadline);
    /// Whether something can be read, within so much time.
    Result<bool> wait_readable(Milliseconds patience);

    /// Bytes that were handed to the network so far.
    uint64_t bytes_written() const { return bytes_written_; }

 private:
    TlsStream(UniqueFd socket, std::string name, int interrupt)
        : socket_(std::move(socket)), name_(std::move(name)), interrupt_(interrupt) {}
    Result<void> handshake(const std::string& keys, bool as_server);
    /// After a call of OpenSSL that gave `outcome`: waits until it can be made again.
    Result<void> wait(int outcome, Deadline deadline);
    Result<bool> wait_for(short events, Deadline deadline);

    UniqueFd socket_;
    std::string name_;
    std::string peer_key_;
    int interrupt_;
    SslContextPtr context_;
    SslPtr ssl_;
    uint64_t bytes_written_ = 0;
};

/// A socket that listens at "HOST:PORT". Errors (kUsage): this is not an address of this host.
Result<UniqueFd> listen_at(const std::string& address);

/// The parts of "HOST:PORT" or "[HOST]:PORT". Errors: kUsage.
struct HostAndPort {
    std::string host;
    std::string port;
};
Result<HostAndPort> parse_address(const std::string& address);

}  // namespace ivmm::peer
