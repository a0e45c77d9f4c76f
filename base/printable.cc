#include "base/printable.h"

#include <algorithm>

namespace ivmm {

std::string printable(std::string text) {
    constexpr size_t kMaxText = 1000;
    text.resize(std::min(text.size(), kMaxText));
    for (size_t i = 0; i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        if (byte < ' ' || byte == 0x7f) {
            text[i] = '?';
        } else if (i > 0 && text[i - 1] == '\xc2' && byte < 0xa0) {
            text[i - 1] = text[i] = '?';  // in UTF-8, U+0080 to U+009F are control characters too
        }
    }
    return text;
}

}  // namespace ivmm
