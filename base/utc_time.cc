#include "base/utc_time.h"

#include <fmt/core.h>

#include <chrono>
#include <ctime>

namespace ivmm {
namespace {

std::string to_second(std::time_t seconds) {
    std::tm utc{};
    ::gmtime_r(&seconds, &utc);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", utc.tm_year + 1900, utc.tm_mon + 1,
                       utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

}  // namespace

std::string utc_time() {
    return utc_time(std::time(nullptr));
}

std::string utc_time(int64_t seconds) {
    return to_second(seconds) + "Z";
}

std::string utc_time_us() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return utc_time_us(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
}

std::string utc_time_us(int64_t microseconds) {
    constexpr int64_t kSecond = 1'000'000;
    return fmt::format("{}.{:06}Z", to_second(microseconds / kSecond), microseconds % kSecond);
}

}  // namespace ivmm
