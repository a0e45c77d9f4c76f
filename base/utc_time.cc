#include "base/utc_time.h"

#include <fmt/core.h>

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
    return to_second(std::time(nullptr)) + "Z";
}

std::string utc_time_us() {
    std::timespec now{};
    std::timespec_get(&now, TIME_UTC);
    return fmt::format("{}.{:06}Z", to_second(now.tv_sec), now.tv_nsec / 1000);
}

}  // namespace ivmm
