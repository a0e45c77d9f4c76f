#pragma once

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace ivmm::fuzz {

/// The input, eaten from the front; then zeros.
struct Input {
    ConstByteSpan rest;
    template <class T>
    T next() {
        T value{};
        const auto part = next(sizeof(T));
        std::memcpy(&value, part.data(), part.size());
        return value;
    }
    ConstByteSpan next(size_t length) {
        const auto part = rest.first(std::min(length, rest.size()));
        rest = rest.subspan(part.size());
        return part;
    }
};

}  // namespace ivmm::fuzz
