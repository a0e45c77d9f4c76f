#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "devices/suspendable.h"

/// What every Suspendable part has to do. A test file adds its part with
///
///     class MyFixture : public SuspendableFixture { … };
///     IVMM_SUSPENDABLE_CONFORMANCE(MyDevice, [] { return std::make_unique<MyFixture>(); });
///
/// and gets the tests SuspendableConformance.MyDevice_….
namespace ivmm::test {

/// One part and all that it stands on. No other thread uses the part.
class SuspendableFixture {
 public:
    virtual ~SuspendableFixture() = default;
    virtual Suspendable& part() = 0;
    /// Uses the part (thawed) so that its state differs from all its states before. False if a
    /// part of this kind has only one state.
    virtual bool change() = 0;
    /// Uses the part (thawed) in whatever state it is. It may fail, but not crash or hang.
    virtual void use() {}
};

using SuspendableFactory = std::function<std::unique_ptr<SuspendableFixture>()>;

class SuspendableConformance : public ::testing::Test {
 public:
    using Check = void (SuspendableConformance::*)();
    SuspendableConformance(const SuspendableFactory& factory, Check check)
        : factory_(factory), fixture_(factory()), check_(check) {}
    void TestBody() override { (this->*check_)(); }

    void save_change_restore() {
        part().freeze();
        const auto before = part().save_state();
        part().thaw();
        const bool changed = fixture_->change();
        part().freeze();
        if (changed) {
            EXPECT_NE(part().save_state(), before);
        }
        expect_restored(before);
        part().thaw();
        fixture_->use();
    }

    void restore_into_another() {
        fixture_->change();
        part().freeze();
        const auto saved = part().save_state();
        auto other = factory_();
        other->part().freeze();
        const auto restored = other->part().restore_state(saved);
        ASSERT_TRUE(restored) << restored.error().message;
        EXPECT_EQ(other->part().save_state(), saved);
        EXPECT_EQ(other->part().state_id(), part().state_id());
        other->part().thaw();
    }

    void freeze_twice_is_freeze_once() {
        fixture_->change();
        part().freeze();
        const auto once = part().save_state();
        part().freeze();
        EXPECT_EQ(part().save_state(), once);
        part().thaw();
        fixture_->use();
        part().thaw();  // nor does a second thaw matter
        fixture_->use();
    }

    void truncated_is_refused() {
        const auto good = frozen_state();
        for (size_t n = 0; n < good.size(); n += step(good.size())) {
            expect_refused({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)}, good);
        }
        expect_refused({good.begin(), good.end() - 1}, good);
    }

    void extended_is_refused() {
        const auto good = frozen_state();
        for (const size_t n : std::initializer_list<size_t>{1, 4, 8, 4096}) {
            auto longer = good;
            longer.resize(good.size() + n);
            expect_refused(longer, good);
        }
    }

    void other_version_is_refused() {
        const auto good = frozen_state();
        for (const auto version : {0x00, 0x7f, 0xff}) {
            auto other = good;
            other.front() = static_cast<std::byte>(version);
            expect_refused(other, good);
        }
    }

    void flipped_bits_are_harmless() {
        const auto good = frozen_state();
        for (size_t bit = 0; bit < good.size() * 8; bit += step(good.size() * 8)) {
            auto flipped = good;
            flipped[bit / 8] ^= std::byte{1} << (bit % 8);
            expect_harmless(flipped, good);
        }
    }

    void random_states_are_harmless() {
        const auto good = frozen_state();
        std::mt19937 random(1);
        for (int i = 0; i < 300; ++i) {
            auto state = good;
            if (i % 3 == 0) {
                state.resize(random() % (2 * good.size() + 1));
                for (auto& byte : state) {
                    byte = static_cast<std::byte>(random());
                }
            } else {
                // Mostly good ones get further.
                for (uint32_t n = 0; n <= random() % 4; ++n) {
                    state[random() % state.size()] = static_cast<std::byte>(random());
                }
            }
            expect_harmless(state, good);
        }
    }

 private:
    using Bytes = std::vector<std::byte>;

    Suspendable& part() { return fixture_->part(); }
    /// A thousand samples of a long state are enough.
    static size_t step(size_t size) { return std::max<size_t>(1, size / 1000); }

    Bytes frozen_state() {
        fixture_->change();
        part().freeze();
        return part().save_state();
    }
    void expect_restored(const Bytes& state) {
        const auto restored = part().restore_state(state);
        ASSERT_TRUE(restored) << restored.error().message;
        EXPECT_EQ(part().save_state(), state);
    }
    void expect_refused(const Bytes& state, const Bytes& good) {
        const auto restored = part().restore_state(state);
        EXPECT_FALSE(restored) << state.size() << " bytes of " << good.size();
        if (!restored) {
            EXPECT_FALSE(restored.error().message.empty());
        }
        EXPECT_EQ(part().save_state(), good) << "a refused state left something behind";
    }
    void expect_harmless(const Bytes& state, const Bytes& good) {
        if (!part().restore_state(state)) {
            EXPECT_EQ(part().save_state(), good) << "a refused state left something behind";
            return;
        }
        part().thaw();
        fixture_->use();
        part().freeze();
        expect_restored(good);
    }

    SuspendableFactory factory_;
    std::unique_ptr<SuspendableFixture> fixture_;
    Check check_;
};

/// Adds the suite's tests for one part. Before main() or in it.
inline bool register_suspendable(const char* name, const SuspendableFactory& factory,
                                 const char* file, int line) {
    using Suite = SuspendableConformance;
    const std::pair<const char*, Suite::Check> checks[] = {
        {"SaveChangeRestore", &Suite::save_change_restore},
        {"RestoreIntoAnother", &Suite::restore_into_another},
        {"FreezeTwiceIsFreezeOnce", &Suite::freeze_twice_is_freeze_once},
        {"TruncatedIsRefused", &Suite::truncated_is_refused},
        {"ExtendedIsRefused", &Suite::extended_is_refused},
        {"OtherVersionIsRefused", &Suite::other_version_is_refused},
        {"FlippedBitsAreHarmless", &Suite::flipped_bits_are_harmless},
        {"RandomStatesAreHarmless", &Suite::random_states_are_harmless},
    };
    for (const auto& [title, check] : checks) {
        const auto test = std::string(name) + "_" + title;
        ::testing::RegisterTest("SuspendableConformance", test.c_str(), nullptr, nullptr, file,
                                line, [factory, check = check]() -> SuspendableConformance* {
                                    return new SuspendableConformance(factory, check);
                                });
    }
    return true;
}

}  // namespace ivmm::test

/// In an anonymous namespace or not, once a part.
#define IVMM_SUSPENDABLE_CONFORMANCE(name, ...)           \
    [[maybe_unused]] const bool ivmm_conformance_##name = \
        ::ivmm::test::register_suspendable(#name, __VA_ARGS__, __FILE__, __LINE__)
