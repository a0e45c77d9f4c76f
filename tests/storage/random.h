#pragma once

#include <cstdint>
#include <random>
#include <vector>

/// Random tests that can be repeated and extended by environment variables.
namespace ivmm::test {

/// IVMM_SEED, or a new one; printed either way.
uint64_t random_seed();

/// The value of an environment variable, or `usual`, which a sanitized build divides by ten.
uint64_t amount(const char* variable, uint64_t usual);

class Random {
 public:
    explicit Random(uint64_t seed) : engine_(seed) {}
    uint64_t number() { return engine_(); }
    /// From 0 to `end` - 1.
    uint64_t below(uint64_t end) { return engine_() % end; }
    bool one_in(uint64_t n) { return below(n) == 0; }
    template <class T>
    const T& pick(const std::vector<T>& from) {
        return from[below(from.size())];
    }

 private:
    std::mt19937_64 engine_;
};

}  // namespace ivmm::test
