#include "net/ntp_answer.h"

#include "net/wire.h"

namespace ivmm::net {
namespace {

constexpr size_t kMessage = 48;
constexpr uint8_t kClient = 3;
constexpr uint8_t kServer = 4;
constexpr uint64_t kFrom1900To1970S = 2'208'988'800;
constexpr uint64_t kSecond = 1'000'000'000;

/// Seconds since 1900, modulo an era, and 2^32ths of them.
void put_time(ByteSpan message, size_t offset, uint64_t wall_ns) {
    store_be32(message, offset, static_cast<uint32_t>(wall_ns / kSecond + kFrom1900To1970S));
    store_be32(message, offset + 4, static_cast<uint32_t>(((wall_ns % kSecond) << 32) / kSecond));
}

}  // namespace

std::optional<std::vector<std::byte>> answer_ntp(ConstByteSpan query, uint64_t wall_ns) {
    if (query.size() < kMessage) {
        return std::nullopt;
    }
    const uint8_t first = load8(query, 0);
    const uint8_t version = (first >> 3) & 7U;
    if ((first & 7U) != kClient || version < 1 || version > 4) {
        return std::nullopt;
    }
    std::vector<std::byte> bytes(kMessage);
    const ByteSpan message(bytes);
    store8(message, 0, static_cast<uint8_t>(version << 3 | kServer));
    store8(message, 1, 1);                                      // stratum
    store8(message, 2, load8(query, 2));                        // poll interval
    store8(message, 3, 0xec);                                   // precision: 2^-20 s
    store_be32(message, 8, 0x00000010);                         // root dispersion: 0.2 ms
    store_be32(message, 12, 0x47505300);                        // "GPS"
    put_time(message, 16, wall_ns - wall_ns % (16 * kSecond));  // when the clock was set last
    std::memcpy(message.data() + 24, query.data() + 40, 8);     // when the client had sent
    put_time(message, 32, wall_ns);
    put_time(message, 40, wall_ns);
    return bytes;
}

}  // namespace ivmm::net
