#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "devices/console_port.h"
#include "vmm/machine/machine.h"

namespace ivmm::test {

/// Why no guest can run here, or nothing.
std::optional<std::string> no_kvm_reason();

/// Configuration for one of the freestanding test guests (guest-images/testguests): 64 MiB, one
/// vCPU, no ACPI, so that the guest finds its devices on the command line.
GuestConfig test_guest(const std::string& guest, const std::string& cmdline = "");

/// A guest in this process: gathers what it prints, and its ending.
class GuestRun final : private ConsoleOutput {
 public:
    /// Builds and starts; a failure is the test's failure.
    explicit GuestRun(const GuestConfig& config);
    ~GuestRun() override;

    Machine& machine() { return *machine_; }
    /// Waits until the guest has printed `text` (after what an earlier call has found), at most
    /// `seconds`.
    bool wait_for(const std::string& text, int seconds = 60);
    /// Waits for the guest's end; nullopt after `seconds`.
    std::optional<Ending> wait_end(int seconds = 60);
    std::string output();
    void type(const std::string& text);

 private:
    void console_output(ConstByteSpan bytes) override;

    std::mutex mutex_;
    std::condition_variable changed_;
    std::string output_;
    size_t searched_ = 0;
    std::optional<Ending> ending_;
    std::unique_ptr<Machine> machine_;
};

}  // namespace ivmm::test

/// Skips the test where there is no usable /dev/kvm.
#define IVMM_REQUIRE_KVM()                                   \
    if (const auto reason = ::ivmm::test::no_kvm_reason()) { \
        GTEST_SKIP() << *reason;                             \
    }
