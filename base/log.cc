#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace ivmm::log {
namespace {

spdlog::level::level_enum to_spdlog(Level level) {
    switch (level) {
        case Level::kDebug:
            return spdlog::level::debug;
        case Level::kInfo:
            return spdlog::level::info;
        case Level::kWarning:
            return spdlog::level::warn;
        case Level::kError:
            return spdlog::level::err;
    }
    return spdlog::level::info;
}

spdlog::logger& logger() {
    static auto instance = [] {
        auto created = std::make_shared<spdlog::logger>(
            "ivmm", std::make_shared<spdlog::sinks::stderr_sink_mt>());
        created->set_pattern("ivmm: %v");
        return created;
    }();
    return *instance;
}

}  // namespace

void set_level(Level level) {
    logger().set_level(to_spdlog(level));
}

void write(Level level, std::string_view message) {
    logger().log(to_spdlog(level), message);
}

bool Throttle::admit(uint64_t* suppressed) {
    const std::scoped_lock lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (now - window_start_ >= period_) {
        window_start_ = now;
        in_window_ = 0;
    }
    if (in_window_ >= burst_) {
        ++suppressed_;
        return false;
    }
    ++in_window_;
    *suppressed = std::exchange(suppressed_, 0);
    return true;
}

}  // namespace ivmm::log
