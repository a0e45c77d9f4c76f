#include "tests/support/guest_run.h"

#include <gtest/gtest.h>

#include <chrono>

#include "vmm/kvm/kvm.h"

namespace ivmm::test {

std::optional<std::string> no_kvm_reason() {
    if (auto kvm = Kvm::open(); !kvm) {
        return kvm.error().message;
    }
    return std::nullopt;
}

GuestConfig test_guest(const std::string& guest, const std::string& cmdline) {
    GuestConfig config;
    config.name = guest;
    config.kernel = std::string(IVMM_TEST_GUESTS) + "/" + guest + ".elf";
    config.cmdline = cmdline;
    config.memory_bytes = uint64_t{64} << 20;
    config.acpi = false;
    return config;
}

GuestRun::GuestRun(const GuestConfig& config) {
    auto machine = Machine::create(config, *this);
    if (!machine) {
        ADD_FAILURE() << machine.error().message;
        return;
    }
    machine_ = *std::move(machine);
    const auto started = machine_->start([this](const Ending& ending) {
        const std::scoped_lock lock(mutex_);
        ending_ = ending;
        changed_.notify_all();
    });
    EXPECT_TRUE(started);
}

GuestRun::~GuestRun() {
    if (machine_) {
        machine_->stop();
    }
}

bool GuestRun::wait_for(const std::string& text, int seconds) {
    std::unique_lock lock(mutex_);
    size_t found = std::string::npos;
    changed_.wait_for(lock, std::chrono::seconds(seconds), [&] {
        found = output_.find(text, searched_);
        return found != std::string::npos || ending_.has_value();
    });
    if (found == std::string::npos) {
        return false;
    }
    searched_ = found + text.size();
    return true;
}

std::optional<Ending> GuestRun::wait_end(int seconds) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(seconds), [&] { return ending_.has_value(); });
    return ending_;
}

std::string GuestRun::output() {
    const std::scoped_lock lock(mutex_);
    return output_;
}

void GuestRun::type(const std::string& text) {
    machine_->console_input().console_input(std::as_bytes(std::span(text)));
}

void GuestRun::console_output(ConstByteSpan bytes) {
    const std::scoped_lock lock(mutex_);
    output_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    changed_.notify_all();
}

}  // namespace ivmm::test
