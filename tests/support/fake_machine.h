#pragma once

#include <algorithm>
#include <csignal>
#include <memory>
#include <string>
#include <utility>

#include "vmm/machine/machine.h"

namespace ivmm::test {

/// A guest without KVM, on its caller's thread: it echoes what is typed, and obeys the lines
/// "poweroff", "panic", "flood" (prints 1 MiB) and "crash" (kills its process).
class FakeMachine final : public Machine, public ConsoleInput {
 public:
    static Result<std::unique_ptr<Machine>> create(const GuestConfig& config,
                                                   ConsoleOutput& output) {
        if (config.cmdline == "fail-create") {
            return fail_as(ErrorKind::kHost, "no /dev/kvm on this fake host");
        }
        return std::unique_ptr<Machine>(new FakeMachine(config, output));
    }
    FakeMachine(GuestConfig config, ConsoleOutput& output)
        : config_(std::move(config)), output_(output) {}

    Result<void> start(EndCallback on_end) override {
        if (config_.cmdline == "fail-start") {
            return fail("the fake guest does not start");
        }
        on_end_ = std::move(on_end);
        state_ = RunState::kRunning;
        print("fake guest ready\r\n");
        return {};
    }
    Result<void> pause() override {
        state_ = RunState::kPaused;
        return {};
    }
    Result<void> resume() override {
        state_ = RunState::kRunning;
        return {};
    }
    void stop() override { end(Ending::Reason::kStopped, "stopped"); }
    Result<MachineState> save() override { return fail("the fake guest has no state"); }
    GuestMemory& memory() override { return *memory_; }
    Result<std::unique_ptr<DirtyTracker>> track_dirty() override {
        return fail("the fake guest has no dirty log");
    }
    const GuestConfig& config() const override { return config_; }
    RunState state() const override { return state_; }
    uint64_t disk_written_bytes() const override { return 0; }
    MachineStatus status() override {
        MachineStatus status;
        status.state = state_;
        status.memory_bytes = config_.memory_bytes;
        status.host_kind = "fake";
        status.kernel_command_line = config_.cmdline;
        status.vcpus.resize(config_.cpus);
        status.devices.push_back({"blk0", "virtio-blk", "not \xff utf-8"});
        return status;
    }
    ConsoleInput& console_input() override { return *this; }

    /// Takes little at a time, as a device with a small buffer does.
    size_t console_input(ConstByteSpan bytes) override {
        constexpr size_t kRoom = 100;
        const size_t n = std::min(bytes.size(), kRoom);
        for (const std::byte byte : bytes.first(n)) {
            const char c = static_cast<char>(byte);
            print(std::string(1, c));
            if (c == '\n' || c == '\r') {
                obey(std::exchange(line_, {}));
            } else {
                line_ += c;
            }
        }
        return n;
    }

 private:
    void print(const std::string& text) { output_.console_output(std::as_bytes(std::span(text))); }
    void obey(const std::string& line) {
        if (line == "poweroff") {
            end(Ending::Reason::kPowerOff, "the fake guest powered off");
        } else if (line == "panic") {
            end(Ending::Reason::kPanic, "the fake guest panicked");
        } else if (line == "flood") {
            print(std::string(size_t{1} << 20, 'x') + "\r\nflood done\r\n");
        } else if (line == "crash" && !config_.name.empty()) {
            // Without a name it is in a test program's own process.
            ::raise(SIGKILL);
        }
    }
    void end(Ending::Reason reason, const char* message) {
        state_ = RunState::kEnded;
        if (on_end_) {
            std::exchange(on_end_, {})({reason, message});
        }
    }

    const GuestConfig config_;
    std::unique_ptr<GuestMemory> memory_ = *GuestMemory::create(uint64_t{1} << 20);
    ConsoleOutput& output_;
    EndCallback on_end_;
    RunState state_ = RunState::kCreated;
    std::string line_;
};

}  // namespace ivmm::test
