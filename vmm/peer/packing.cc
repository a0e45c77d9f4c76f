#include "vmm/peer/packing.h"

#include <lz4.h>

namespace ivmm::peer {
namespace {

constexpr std::byte kPlain{0};
constexpr std::byte kLz4{1};

}  // namespace

std::vector<std::byte> pack(ConstByteSpan content) {
    std::vector<std::byte> packed(1 + content.size());
    packed.front() = kLz4;
    const auto* const from = reinterpret_cast<const char*>(content.data());
    auto* const to = reinterpret_cast<char*>(packed.data() + 1);
    // No room for more than 7/8: what saves less is not worth the other side's time.
    const auto room = static_cast<int>(content.size() - content.size() / 8);
    const int size = LZ4_compress_default(from, to, static_cast<int>(content.size()), room);
    if (size > 0) {
        packed.resize(1 + static_cast<size_t>(size));
    } else {
        packed.front() = kPlain;
        std::copy(content.begin(), content.end(), packed.begin() + 1);
    }
    return packed;
}

Result<void> unpack(ConstByteSpan packed, ByteSpan out) {
    if (packed.empty() || packed.size() > kMaxPacked || out.size() > kMaxPiece) {
        return fail("{} bytes are not {} that were packed", packed.size(), out.size());
    }
    const ConstByteSpan content = packed.subspan(1);
    if (packed.front() == kPlain && content.size() == out.size()) {
        std::copy(content.begin(), content.end(), out.begin());
        return {};
    }
    const int size =
        packed.front() == kLz4
            ? LZ4_decompress_safe(reinterpret_cast<const char*>(content.data()),
                                  reinterpret_cast<char*>(out.data()),
                                  static_cast<int>(content.size()), static_cast<int>(out.size()))
            : -1;
    if (size < 0 || static_cast<size_t>(size) != out.size()) {
        return fail("{} packed bytes do not become {}", content.size(), out.size());
    }
    return {};
}

}  // namespace ivmm::peer
