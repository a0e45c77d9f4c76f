#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/event_fd.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "net/port.h"
#include "net/ring.h"

/// How a guest's process and a switch's are connected: two rings in a memory file, an eventfd in
/// each direction, and a socket that carries messages and tells that the peer has gone.
namespace ivmm::net {

/// The only kind of message on the socket, in both directions. Sequenced packets.
struct CableMessage {
    static constexpr uint32_t kMagic = 0x4d564942;
    static constexpr uint16_t kVersion = 1;
    enum Type : uint16_t { kHello = 1, kWelcome, kRefused, kOffloads };

    uint32_t magic = kMagic;
    uint16_t version = kVersion;
    uint16_t type = 0;
    uint32_t offloads = 0;  ///< of kOffloads: bits of Offloads in their order
    std::array<uint8_t, 6> mac{};
    std::array<char, 2> zero{};
    std::array<char, 64> port{};    ///< of kHello
    std::array<char, 176> error{};  ///< of kRefused
};
static_assert(sizeof(CableMessage) == 260);
static_assert(std::has_unique_object_representations_v<CableMessage>);

uint32_t to_bits(const Offloads& offloads);
Offloads offloads_from_bits(uint32_t bits);

/// Memory that both sides have mapped.
class SharedMemory {
 public:
    /// A sealed memory file of kRingPairBytes, zeroed.
    static Result<UniqueFd> create();
    /// Maps one; refuses what its maker could still make shorter.
    static Result<SharedMemory> map(const UniqueFd& file);

    SharedMemory(SharedMemory&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
    SharedMemory& operator=(SharedMemory&&) = delete;
    ~SharedMemory();

    std::byte* to_switch() const { return memory_; }
    std::byte* from_switch() const { return memory_ + kRingStateBytes + kRingBytes; }

 private:
    explicit SharedMemory(std::byte* memory) : memory_(memory) {}
    std::byte* memory_;
};

/// A guest's end of a cable. May be handed to another process before it is used.
struct CableEnd {
    UniqueFd socket;
    UniqueFd memory;
    UniqueFd wakes_switch;  ///< eventfds
    UniqueFd wakes_guest;
};

/// Connects to a port of the switch that listens at `path`. `mac`: of the guest. Errors: no switch
/// there (kHost), the switch refuses, or does not answer in time.
Result<CableEnd> connect_cable(const std::string& path, const std::string& port,
                               const MacAddress& mac,
                               std::chrono::milliseconds patience = std::chrono::seconds(5));

/// Receives one message and at most `descriptors.size()` descriptors. Nullopt: none is there
/// (non-blocking), and an error when the peer has gone or says what is none.
Result<std::optional<CableMessage>> receive_message(int socket,
                                                    std::span<UniqueFd> descriptors = {});
bool send_message(int socket, const CableMessage& message, std::span<const int> descriptors = {});

/// The socket at which a switch waits for guests. `path` must be free.
Result<UniqueFd> listen_for_cables(const std::string& path);

}  // namespace ivmm::net
