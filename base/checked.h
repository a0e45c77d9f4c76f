#pragma once

#include <cstdint>
#include <optional>

/// Arithmetic on numbers that a guest or a file has chosen: nothing wraps around unseen.
namespace ivmm {

template <class T>
[[nodiscard]] constexpr std::optional<T> checked_add(T a, T b) {
    T sum{};
    if (__builtin_add_overflow(a, b, &sum)) {
        return std::nullopt;
    }
    return sum;
}

template <class T>
[[nodiscard]] constexpr std::optional<T> checked_mul(T a, T b) {
    T product{};
    if (__builtin_mul_overflow(a, b, &product)) {
        return std::nullopt;
    }
    return product;
}

/// Whether [offset, offset + length) lies within [0, size).
[[nodiscard]] constexpr bool range_within(uint64_t offset, uint64_t length, uint64_t size) {
    return offset <= size && length <= size - offset;
}

template <class T>
constexpr T align_down(T value, T alignment) {
    return value & ~(alignment - 1);
}

/// Wraps around at the top of T: for values that are known to be far from it.
template <class T>
constexpr T align_up(T value, T alignment) {
    return align_down<T>(value + alignment - 1, alignment);
}

}  // namespace ivmm
