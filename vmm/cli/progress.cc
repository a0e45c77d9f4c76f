#include "vmm/cli/progress.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cstdio>

namespace ivmm::cli {

Progress::Progress(std::string what)
    : what_(std::move(what)), terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
    if (shown_ >= 0) {
        std::fputs("\r\033[K", stderr);
    }
}

void Progress::show(double done) {
    const int percent = static_cast<int>(done * 100);
    if (terminal_ && percent != shown_) {
        shown_ = percent;
        const std::string line = fmt::format("\r{}: {} %", what_, percent);
        std::fputs(line.c_str(), stderr);
    }
}

}  // namespace ivmm::cli
