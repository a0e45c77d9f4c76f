#include "vmm/boot/acpi/aml.h"

#include <algorithm>
#include <cassert>
#include <iterator>

#include "base/bytes.h"

namespace ivmm::aml {
namespace {

constexpr uint8_t kNameOp = 0x08;
constexpr uint8_t kBytePrefix = 0x0a;
constexpr uint8_t kWordPrefix = 0x0b;
constexpr uint8_t kDwordPrefix = 0x0c;
constexpr uint8_t kStringPrefix = 0x0d;
constexpr uint8_t kScopeOp = 0x10;
constexpr uint8_t kBufferOp = 0x11;
constexpr uint8_t kPackageOp = 0x12;
constexpr uint8_t kExtOpPrefix = 0x5b;
constexpr uint8_t kDeviceOp = 0x82;
constexpr size_t kSegmentSize = 4;

void append(Bytes& bytes, const Bytes& more) {
    std::copy(more.begin(), more.end(), std::back_inserter(bytes));
}

Bytes number(uint64_t value, size_t width) {
    Bytes bytes(width);
    store_le(bytes, value);
    return bytes;
}

Bytes byte(uint8_t value) {
    return {std::byte{value}};
}

Bytes name_string(std::string_view name) {
    Bytes bytes;
    if (name.starts_with('\\')) {
        append(bytes, byte('\\'));
        name.remove_prefix(1);
    }
    assert(!name.empty() && name.size() <= kSegmentSize);
    for (size_t i = 0; i < kSegmentSize; ++i) {
        append(bytes, byte(static_cast<uint8_t>(i < name.size() ? name[i] : '_')));
    }
    return bytes;
}

/// PkgLength and the content; the length counts its own bytes too (20.2.4).
Bytes with_length(const Bytes& content) {
    size_t own = 1;
    if (content.size() + own >= size_t{1} << 6) {
        for (own = 2; content.size() + own >= size_t{1} << (4 + 8 * (own - 1)); ++own) {
        }
    }
    const size_t length = content.size() + own;
    Bytes bytes;
    if (own == 1) {
        append(bytes, byte(static_cast<uint8_t>(length)));
    } else {
        append(bytes, byte(static_cast<uint8_t>((own - 1) << 6 | (length & 0xf))));
        append(bytes, number(length >> 4, own - 1));
    }
    append(bytes, content);
    return bytes;
}

}  // namespace

Bytes join(std::initializer_list<Bytes> parts) {
    Bytes bytes;
    for (const auto& part : parts) {
        append(bytes, part);
    }
    return bytes;
}

Bytes integer(uint32_t value) {
    if (value <= 1) {
        return byte(static_cast<uint8_t>(value));  // ZeroOp, OneOp
    }
    if (value <= 0xff) {
        return join({byte(kBytePrefix), number(value, 1)});
    }
    if (value <= 0xffff) {
        return join({byte(kWordPrefix), number(value, 2)});
    }
    return join({byte(kDwordPrefix), number(value, 4)});
}

Bytes string(std::string_view text) {
    Bytes bytes = byte(kStringPrefix);
    for (const char c : text) {
        bytes.push_back(static_cast<std::byte>(c));
    }
    bytes.push_back(std::byte{0});
    return bytes;
}

Bytes eisa_id(std::string_view id) {
    assert(id.size() == 7);
    uint32_t packed = 0;
    for (const char letter : id.substr(0, 3)) {
        packed = packed << 5 | static_cast<uint32_t>(letter - '@');
    }
    for (const char digit : id.substr(3)) {
        packed = packed << 4 | static_cast<uint32_t>(digit <= '9' ? digit - '0' : digit - 'A' + 10);
    }
    // Big-endian, in an integer that is stored little-endian.
    return integer(__builtin_bswap32(packed));
}

Bytes package(std::initializer_list<Bytes> elements) {
    assert(elements.size() <= 0xff);
    return join({byte(kPackageOp),
                 with_length(join({byte(static_cast<uint8_t>(elements.size())), join(elements)}))});
}

Bytes name(std::string_view name, const Bytes& value) {
    return join({byte(kNameOp), name_string(name), value});
}

Bytes scope(std::string_view name, const Bytes& content) {
    return join({byte(kScopeOp), with_length(join({name_string(name), content}))});
}

Bytes device(std::string_view name, std::initializer_list<Bytes> content) {
    return join({byte(kExtOpPrefix), byte(kDeviceOp),
                 with_length(join({name_string(name), join(content)}))});
}

Bytes resource_template(std::initializer_list<Bytes> resources) {
    // End tag; a zero checksum stands for "not used" (6.4.2.9).
    const Bytes content = join({join(resources), byte(0x79), byte(0)});
    return join({byte(kBufferOp),
                 with_length(join({integer(static_cast<uint32_t>(content.size())), content}))});
}

Bytes memory32_fixed(uint32_t start, uint32_t size) {
    constexpr uint8_t kWritable = 1;
    return join({byte(0x86), number(9, 2), byte(kWritable), number(start, 4), number(size, 4)});
}

Bytes io_ports(uint16_t start, uint8_t size) {
    constexpr uint8_t kDecode16 = 1;
    constexpr uint8_t kAlignment = 1;
    return join({byte(0x47), byte(kDecode16), number(start, 2), number(start, 2), byte(kAlignment),
                 byte(size)});
}

Bytes edge_interrupt(uint32_t gsi) {
    constexpr uint8_t kConsumer = 1 << 0;
    constexpr uint8_t kEdge = 1 << 1;
    return join({byte(0x89), number(6, 2), byte(kConsumer | kEdge), byte(1), number(gsi, 4)});
}

}  // namespace ivmm::aml
