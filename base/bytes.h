#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ranges>
#include <span>
#include <type_traits>

/// Little-endian access to byte spans. Guests and files are little-endian, and so is every
/// host that ivmm runs on.
namespace ivmm {

static_assert(std::endian::native == std::endian::little);

using ByteSpan = std::span<std::byte>;
using ConstByteSpan = std::span<const std::byte>;

/// What its own bytes say all about: no pointer, and no span or string_view, whose bytes are an
/// address and not what it shows. (std::array and arrays hold what they show.)
template <class T>
concept PlainValue = std::is_trivially_copyable_v<T> && !std::is_pointer_v<T> &&
                     !std::ranges::enable_borrowed_range<std::remove_cv_t<T>>;

template <PlainValue T>
ConstByteSpan bytes_of(const T& value) {
    return std::as_bytes(std::span<const T, 1>(&value, 1));
}

template <PlainValue T>
ByteSpan writable_bytes_of(T& value) {
    return std::as_writable_bytes(std::span<T, 1>(&value, 1));
}

/// The unsigned number in up to eight bytes.
inline uint64_t load_le(ConstByteSpan bytes) {
    uint64_t value = 0;
    std::memcpy(&value, bytes.data(), bytes.size() < 8 ? bytes.size() : 8);
    return value;
}

/// Stores a number into a span of any width: the low bytes of the value, then zeroes.
inline void store_le(ByteSpan bytes, uint64_t value) {
    const size_t n = bytes.size() < 8 ? bytes.size() : 8;
    std::memcpy(bytes.data(), &value, n);
    std::memset(bytes.data() + n, 0, bytes.size() - n);
}

/// Reads a T at an offset; the caller has checked the bounds.
template <PlainValue T>
T load_at(ConstByteSpan bytes, size_t offset) {
    T value{};
    std::memcpy(&value, bytes.subspan(offset, sizeof(T)).data(), sizeof(T));
    return value;
}

/// Copies the part of `source` that starts at `offset` into `out`; what lies beyond is zero.
/// This is how device configuration spaces are read.
inline void copy_window(ConstByteSpan source, uint64_t offset, ByteSpan out) {
    std::memset(out.data(), 0, out.size());
    if (offset < source.size()) {
        const size_t n = std::min<size_t>(out.size(), source.size() - offset);
        std::memcpy(out.data(), source.data() + offset, n);
    }
}

}  // namespace ivmm
