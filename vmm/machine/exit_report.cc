#include "vmm/machine/exit_report.h"

#include <fmt/format.h>
#include <algorithm>
#include <array>

namespace ivmm {
namespace {

constexpr uint64_t kCr0Protected = 1;
constexpr uint64_t kEferLongModeActive = 1 << 10;
constexpr size_t kMaxInstruction = 15;

std::string describe_mode(const kvm_sregs& sregs) {
    if ((sregs.cr0 & kCr0Protected) == 0) {
        return "real mode";
    }
    const char* width = sregs.cs.db != 0 ? "32-bit" : "16-bit";
    if ((sregs.efer & kEferLongModeActive) != 0) {
        width = sregs.cs.l != 0 ? "64-bit" : "compatibility";
    }
    return fmt::format("{} mode, ring {}", width, sregs.cs.dpl);
}

/// Where a vCPU stands, for the message: best effort, as everything may be out of order.
struct Position {
    uint64_t rip = 0;
    std::string mode = "unknown mode";
    std::vector<uint8_t> instruction;  ///< bytes at RIP, if they can be read
};

Position position_of(const Vcpu& vcpu, const GuestMemory& memory) {
    Position position;
    if (const auto regs = vcpu.regs()) {
        position.rip = regs->rip;
    }
    uint64_t linear = position.rip;
    if (const auto sregs = vcpu.sregs()) {
        position.mode = describe_mode(*sregs);
        if ((sregs->efer & kEferLongModeActive) == 0 || sregs->cs.l == 0) {
            linear += sregs->cs.base;
        }
    }
    for (size_t i = 0; i < kMaxInstruction; ++i) {
        const auto gpa = vcpu.translate(linear + i);
        const auto byte = gpa ? memory.read<uint8_t>(*gpa) : std::nullopt;
        if (!byte) {
            break;
        }
        position.instruction.push_back(*byte);
    }
    return position;
}

std::string hex(const std::vector<uint8_t>& bytes) {
    return bytes.empty() ? "unreadable" : fmt::format("{:02x}", fmt::join(bytes, " "));
}

/// KVM may say itself which bytes it could not emulate (KVM_CAP_EXIT_ON_EMULATION_FAILURE's
/// layout of the exit's data).
std::vector<uint8_t> reported_instruction(const kvm_run& exit) {
    const auto& failure = exit.emulation_failure;
    constexpr uint32_t kWordsWithBytes = 4;
    if (failure.ndata < kWordsWithBytes ||
        (failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) == 0) {
        return {};
    }
    const size_t n = std::min<size_t>(failure.insn_size, sizeof failure.insn_bytes);
    return {failure.insn_bytes, failure.insn_bytes + n};
}

std::string describe_internal_error(Vcpu& vcpu, const GuestMemory& memory) {
    const kvm_run& exit = vcpu.exit();
    auto position = position_of(vcpu, memory);
    const auto where =
        fmt::format("vCPU {}, RIP {:#x}, {}", vcpu.id(), position.rip, position.mode);
    if (exit.internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
        return fmt::format("KVM cannot run the guest on: internal error {} ({}, instruction {})",
                           uint32_t{exit.internal.suberror}, where, hex(position.instruction));
    }
    if (auto reported = reported_instruction(exit); !reported.empty()) {
        position.instruction = std::move(reported);
    }
    auto message = fmt::format("KVM cannot emulate an instruction of the guest: {}, instruction {}",
                               where, hex(position.instruction));
    if (vcpu.vm().kvm().host_kind() == HostKind::kKvmPvm) {
        message +=
            " (a kvm_pvm host emulates the code of guest kernels and does not know every "
            "instruction: use a kernel that avoids this one, or a host with kvm_intel or kvm_amd)";
    }
    return message;
}

}  // namespace

Ending ending_of_exit(Vcpu& vcpu, const GuestMemory& memory) {
    const kvm_run& exit = vcpu.exit();
    switch (exit.exit_reason) {
        case KVM_EXIT_SHUTDOWN:
            return {Ending::Reason::kTripleFault,
                    fmt::format("triple fault on vCPU {}: the guest's fault handlers fault "
                                "themselves",
                                vcpu.id())};
        case KVM_EXIT_INTERNAL_ERROR:
            return {Ending::Reason::kEmulationFailure, describe_internal_error(vcpu, memory)};
        case KVM_EXIT_FAIL_ENTRY:
            return {
                Ending::Reason::kEmulationFailure,
                fmt::format("the processor refuses to enter the guest on vCPU {}: hardware "
                            "reason {:#x}",
                            vcpu.id(), uint64_t{exit.fail_entry.hardware_entry_failure_reason})};
        default:
            return {Ending::Reason::kHostError,
                    fmt::format("vCPU {} left the guest for a reason that ivmm does not know: {}",
                                vcpu.id(), uint32_t{exit.exit_reason})};
    }
}

}  // namespace ivmm
