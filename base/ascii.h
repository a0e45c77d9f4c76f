#pragma once

namespace ivmm {

/// The small letter of an ASCII capital; anything else as it is. Whatever the locale.
constexpr char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

}  // namespace ivmm
