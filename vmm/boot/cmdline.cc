#include "vmm/boot/cmdline.h"

#include <cassert>
#include <vector>

#include "vmm/boot/layout.h"

namespace ivmm {
namespace {

/// What Linux needs where KVM is kvm_pvm: there the guest sees the CPUID of the host unfiltered,
/// while its kernel runs in an emulator that knows much less.
constexpr std::string_view kPvmWords =
    // Instructions and features that the emulator does not know. Linux reads no more than 127
    // characters of the list.
    "clearcpuid=cx16,smap,erms,fsrm,smep,umip,pcid,invpcid,popcnt,rdrand,rdseed,fsgsbase,rdtscp,"
    "ssse3,sse4_1,sse4_2,aes,pclmulqdq,sha_ni "
    // Without XSAVE the kernel keeps to FXSAVE, which the emulator knows; AVX goes with it.
    "noxsave "
    // Emulated code is too slow for the watchdog and for the boot-time test of the timer.
    "tsc=reliable no_timer_check "
    // The TSC is the host's and cannot be moved: to a guest that goes on from files, all the time
    // in between would have passed at once. KVM's clock stands still meanwhile.
    "clocksource=kvm-clock "
    // Two passes over the kernel's own code at boot that cost seconds: splitting its mappings to
    // protect them, and patching its lock prefixes away.
    "rodata=off noreplace-smp "
    // For init's environment: the kernel saves no wide registers, so that glibc must not use them.
    "GLIBC_TUNABLES=glibc.cpu.hwcaps=-XSAVE,-XSAVEC,-AVX_Fast_Unaligned_Load";

/// The words of a command line. Quotes are not looked at: no word that matters here has any.
std::vector<std::string_view> words_of(std::string_view text) {
    constexpr std::string_view kSpace = " \t\n";
    std::vector<std::string_view> words;
    for (size_t start = text.find_first_not_of(kSpace); start != std::string_view::npos;) {
        const size_t end = std::min(text.find_first_of(kSpace, start), text.size());
        words.push_back(text.substr(start, end - start));
        start = text.find_first_not_of(kSpace, end);
    }
    return words;
}

bool has_parameter(std::string_view text, std::string_view prefix) {
    for (const auto word : words_of(text)) {
        if (word.starts_with(prefix)) {
            return true;
        }
    }
    return false;
}

}  // namespace

bool disables_acpi(std::string_view user) {
    for (const auto word : words_of(user)) {
        if (word == "acpi=off") {
            return true;
        }
    }
    return false;
}

bool uses_virtio_console(std::string_view user) {
    return has_parameter(user, "console=hvc0");
}

Result<std::string> build_cmdline(const CmdlineSpec& spec) {
    assert(spec.virtio_devices <= layout::kMaxVirtioDevices);
    // Ours come first: of two equal parameters Linux mostly takes the last, and what follows a
    // "--" of the user is for init.
    std::string line;
    const auto add = [&line](std::string_view word) {
        line += line.empty() ? "" : " ";
        line += word;
    };
    if (!has_parameter(spec.user, "console=")) {
        add("console=ttyS0");
    }
    if (!has_parameter(spec.user, "panic=")) {
        add("panic=-1");  // a reset at once, not a vCPU that turns in circles for ever
    }
    if (spec.kvm_pvm) {
        add(kPvmWords);
    }
    const bool user_disables_acpi = disables_acpi(spec.user);
    if (!spec.acpi && !user_disables_acpi) {
        add("acpi=off");  // there are no tables to look for
    }
    if (!spec.acpi || user_disables_acpi) {
        for (uint32_t i = 0; i < spec.virtio_devices; ++i) {
            add(fmt::format("virtio_mmio.device=4K@{:#x}:{}", layout::virtio_mmio(i),
                            layout::virtio_gsi(i)));
        }
    }
    if (!spec.user.empty()) {
        add(spec.user);
    }
    if (line.size() >= layout::kCmdlineSize) {
        return fail_as(ErrorKind::kUsage,
                       "the kernel command line has {} bytes, {} of them ivmm's; at most {} fit",
                       line.size(), line.size() - spec.user.size(), layout::kCmdlineSize - 1);
    }
    return line;
}

}  // namespace ivmm
