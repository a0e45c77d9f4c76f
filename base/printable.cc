#include "base/printable.h"

#include <algorithm>

namespace ivmm {

std::string printable(std::string text) {
    constexpr size_t kMaxText = 1000;
    text.resize(std::min(text.size(), kMaxText));
    std::ranges::replace_if(
        text, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; }, '?');
    return text;
}

}  // namespace ivmm
