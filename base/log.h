#pragma once

#include <fmt/core.h>

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string_view>

/// The log goes to standard error, one line a message. Any thread may log.
namespace ivmm::log {

enum class Level { kDebug, kInfo, kWarning, kError };

/// Messages below this level are dropped. Default: kInfo.
void set_level(Level level);
void write(Level level, std::string_view message);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

/// Lets a few messages through and counts the rest, so that whoever causes them (a guest) cannot
/// flood the log. Any thread.
class Throttle {
 public:
    /// At most `burst` messages in each `period`.
    explicit Throttle(uint32_t burst = 5,
                      std::chrono::steady_clock::duration period = std::chrono::seconds(60))
        : burst_(burst), period_(period) {}

    template <class... Args>
    void warning(fmt::format_string<Args...> format, Args&&... args) {
        uint64_t suppressed = 0;
        if (!admit(&suppressed)) {
            return;
        }
        auto message = fmt::format(format, std::forward<Args>(args)...);
        if (suppressed > 0) {
            message += fmt::format(" ({} more like it were not shown)", suppressed);
        }
        write(Level::kWarning, message);
    }

 private:
    bool admit(uint64_t* suppressed);

    const uint32_t burst_;
    const std::chrono::steady_clock::duration period_;
    std::mutex mutex_;
    std::chrono::steady_clock::time_point window_start_;
    uint32_t in_window_ = 0;
    uint64_t suppressed_ = 0;
};

}  // namespace ivmm::log
