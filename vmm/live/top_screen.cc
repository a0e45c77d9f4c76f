#include "vmm/live/top_screen.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/printable.h"

namespace ivmm::live {
namespace {

using Style = PictureLine::Style;

// What every terminal since the VT100 knows, and the other screen of xterm.
constexpr const char* kEnter = "\x1b[?1049h\x1b[?25l\x1b[?7l";
constexpr const char* kLeave = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
constexpr const char* kHome = "\x1b[H";
constexpr const char* kEndLine = "\x1b[0m\x1b[K";
constexpr const char* kClearBelow = "\x1b[J";

const char* code_of(Style style) {
    switch (style) {
        case Style::kPlain:
            break;
        case Style::kTitle:
            return "\x1b[1m";
        case Style::kSelected:
            return "\x1b[7m";
        case Style::kDim:
            return "\x1b[2m";
        case Style::kAlarm:
            return "\x1b[31m";
    }
    return "";
}

/// A terminal that has gone is noticed elsewhere.
void write_all(std::string_view text) {
    while (!text.empty()) {
        const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
        if (n < 0 && errno != EINTR) {
            return;
        }
        text.remove_prefix(n > 0 ? static_cast<size_t>(n) : 0);
    }
}

}  // namespace

TopScreen::TopScreen() : raw_(STDOUT_FILENO, kLeave) {
    write_all(kEnter);
}

TopScreen::~TopScreen() = default;

void TopScreen::show(const std::string& head, const std::vector<PictureLine>& picture,
                     const std::string& foot) {
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) {
        size.ws_row = 24;
        size.ws_col = 80;
    }
    const size_t height = size.ws_row;
    constexpr size_t kFrame = 2;  // head and foot
    auto lines = fit(picture, size.ws_col, height > kFrame ? height - kFrame : 0);
    lines.insert(lines.begin(), {head, Style::kPlain});
    lines.resize(std::max(height, kFrame) - 1);
    lines.push_back({foot, Style::kDim});
    lines = fit(std::move(lines), size.ws_col, height);
    std::string text = kHome;
    for (size_t i = 0; i < lines.size(); ++i) {
        // One after another, and none after the last: that would scroll.
        text +=
            (i > 0 ? "\r\n" : "") + std::string(code_of(lines[i].style)) + lines[i].text + kEndLine;
    }
    write_all(text + kClearBelow);
}

}  // namespace ivmm::live
