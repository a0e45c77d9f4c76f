// The conformance suite for what KVM keeps: a vCPU, and the interrupt controllers, timer and clock
// of a VM.

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/guest_run.h"
#include "tests/support/suspendable_conformance.h"
#include "vmm/kvm/vcpu.h"

namespace ivmm::test {
namespace {

constexpr uint32_t kMsrKernelGsBase = 0xc0000102;

/// A VM with one vCPU that has not run.
struct Machinery {
    Kvm kvm = *Kvm::open();
    std::unique_ptr<GuestMemory> memory = *GuestMemory::create(1 << 20);
    std::unique_ptr<Vm> vm = *Vm::create(kvm, *memory);
    std::unique_ptr<Vcpu> vcpu = *Vcpu::create(*vm, 0, 1);
};

VcpuState save_of(Vcpu& vcpu) {
    auto state = *vcpu.save();
    // These go on by themselves.
    constexpr auto kRunning =
        std::to_array<uint32_t>({0x10 /* TSC */, 0xe7 /* MPERF */, 0xe8 /* APERF */,
                                 0x40000020 /* Hyper-V reference time */});
    for (auto& msr : state.msrs) {
        if (std::ranges::find(kRunning, msr.index) != kRunning.end()) {
            msr.data = 0;
        }
    }
    return state;
}

VmState save_of(Vm& vm) {
    auto state = *vm.save();
    state.clock_ns = 0;
    state.host_ns = 0;
    for (auto& channel : state.pit.channels) {
        channel.count_load_time = 0;
    }
    return state;
}

Vcpu& part_of(Machinery& machinery, const VcpuState*) {
    return *machinery.vcpu;
}
Vm& part_of(Machinery& machinery, const VmState*) {
    return *machinery.vm;
}

/// A refused restore leaves KVM's parts unusable, and their owner throws them away. Here they are
/// built anew with the state from before.
template <class State>
class KvmPart final : public Suspendable {
 public:
    std::string state_id() const override { return "part"; }
    std::vector<std::byte> save_state() const override { return encode_state(save_of(part())); }
    Result<void> restore_state(ConstByteSpan bytes) override {
        IVMM_ASSIGN(const auto state, decode_state<State>(bytes));
        const auto before = *part().save();
        auto restored = part().restore(state, GuestTime::kStoodStill);
        if (!restored) {
            machinery_ = std::make_unique<Machinery>();
            EXPECT_TRUE(part().restore(before, GuestTime::kStoodStill));
        }
        return restored;
    }
    Machinery& machinery() { return *machinery_; }

 private:
    auto& part() const { return part_of(*machinery_, static_cast<const State*>(nullptr)); }
    std::unique_ptr<Machinery> machinery_ = std::make_unique<Machinery>();
};

class VcpuFixture final : public SuspendableFixture {
 public:
    Suspendable& part() override { return part_; }
    bool change() override {
        auto& vcpu = *part_.machinery().vcpu;
        auto state = *vcpu.save();
        ++changes_;
        state.regs.rbx = changes_;
        state.xsave[160] = changes_;  // XMM0
        for (auto& msr : state.msrs) {
            if (msr.index == kMsrKernelGsBase) {
                msr.data = 0x1000 * changes_;
            }
        }
        EXPECT_TRUE(vcpu.restore(state, GuestTime::kStoodStill));
        return true;
    }
    void use() override {
        auto& vcpu = *part_.machinery().vcpu;
        vcpu.interrupt_run();
        EXPECT_TRUE(vcpu.run());
    }

 private:
    KvmPart<VcpuState> part_;
    uint8_t changes_ = 0;
};

class VmFixture final : public SuspendableFixture {
 public:
    Suspendable& part() override { return part_; }
    bool change() override {
        auto state = *part_.machinery().vm->save();
        state.irqchips[0].chip.pic.irq_base = ++changes_;
        state.irqchips[2].chip.ioapic.redirtbl[5].fields.vector = changes_;
        EXPECT_TRUE(part_.machinery().vm->restore(state, GuestTime::kStoodStill));
        return true;
    }

 private:
    KvmPart<VmState> part_;
    uint8_t changes_ = 0x20;
};

const bool kRegistered = [] {
    if (no_kvm_reason()) {
        return false;
    }
    register_suspendable(
        "Vcpu", [] { return std::make_unique<VcpuFixture>(); }, __FILE__, __LINE__);
    register_suspendable(
        "Vm", [] { return std::make_unique<VmFixture>(); }, __FILE__, __LINE__);
    return true;
}();

TEST(KvmState, IsCheckedByTheConformanceSuite) {
    IVMM_REQUIRE_KVM();
    EXPECT_TRUE(kRegistered);
}

}  // namespace
}  // namespace ivmm::test
