#pragma once

#include <sched.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <thread>

namespace ivmm::test {

/// Runs `body` on a thread that has a network namespace of its own; it vanishes with all that was
/// made in it. Returns why that is not possible here, or nothing.
inline std::string in_own_network(const std::function<void()>& body) {
    std::string problem;
    std::thread([&] {
        if (::unshare(CLONE_NEWNET) != 0) {
            problem = std::string("no network namespace of our own: ") + std::strerror(errno);
            return;
        }
        body();
    }).join();
    return problem;
}

}  // namespace ivmm::test

/// Runs a lambda as in_own_network() does; ends the test as skipped, with the reason, if it cannot.
#define IVMM_IN_OWN_NETWORK(...)                                             \
    if (const auto ivmm_problem = ::ivmm::test::in_own_network(__VA_ARGS__); \
        !ivmm_problem.empty()) {                                             \
        GTEST_SKIP() << ivmm_problem;                                        \
    }                                                                        \
    static_assert(true)
