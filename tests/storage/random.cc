#include "tests/storage/random.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

namespace ivmm::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kSlowness = 10;
#else
constexpr uint64_t kSlowness = 1;
#endif

std::optional<uint64_t> from_environment(const char* variable) {
    const char* text = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe): nobody sets it
    uint64_t value = 0;
    if (text == nullptr ||
        std::from_chars(text, text + std::strlen(text), value).ec != std::errc()) {
        return std::nullopt;
    }
    return value;
}

}  // namespace

uint64_t random_seed() {
    const uint64_t seed =
        from_environment("IVMM_SEED").value_or((uint64_t{std::random_device()()}) << 8U);
    std::printf("repeat with IVMM_SEED=%llu\n", static_cast<unsigned long long>(seed));
    return seed;
}

uint64_t amount(const char* variable, uint64_t usual) {
    return from_environment(variable).value_or(std::max<uint64_t>(usual / kSlowness, 1));
}

}  // namespace ivmm::test
