#include "vmm/boot/cmdline.h"

#include <gtest/gtest.h>

namespace ivmm {
namespace {

std::string line(const CmdlineSpec& spec) {
    const auto result = build_cmdline(spec);
    return result ? *result : "error: " + result.error().message;
}

TEST(Cmdline, OursComesFirst) {
    EXPECT_EQ(line({.user = "root=/dev/vda -- sh"}), "console=ttyS0 panic=-1 root=/dev/vda -- sh");
    EXPECT_EQ(line({}), "console=ttyS0 panic=-1");
}

TEST(Cmdline, UserReplacesDefaults) {
    EXPECT_EQ(line({.user = "quiet\tconsole=hvc0 panic=5"}), "quiet\tconsole=hvc0 panic=5");
    EXPECT_EQ(line({.user = "netconsole=x panic_on_oops=1"}),
              "console=ttyS0 panic=-1 netconsole=x panic_on_oops=1");
}

TEST(Cmdline, VirtioDevicesWithoutAcpi) {
    constexpr auto kTwoDevices =
        "virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6";
    EXPECT_NE(line({.user = "", .acpi = false, .virtio_devices = 2}).find(kTwoDevices),
              std::string::npos);
    EXPECT_NE(line({.user = "acpi=off", .virtio_devices = 2}).find(kTwoDevices), std::string::npos);
    EXPECT_EQ(line({.user = "acpi=noirq", .virtio_devices = 2}).find("virtio_mmio"),
              std::string::npos);
}

TEST(Cmdline, AcpiOffIsAWord) {
    EXPECT_TRUE(disables_acpi("quiet acpi=off"));
    EXPECT_FALSE(disables_acpi("noacpi=off"));
    EXPECT_FALSE(disables_acpi("acpi=offline"));
    EXPECT_FALSE(disables_acpi(""));
}

TEST(Cmdline, VirtioConsoleIsAWord) {
    EXPECT_TRUE(uses_virtio_console("quiet console=hvc0"));
    EXPECT_FALSE(uses_virtio_console("quiet console=ttyS0"));
    EXPECT_FALSE(uses_virtio_console("netconsole=hvc0"));
    EXPECT_FALSE(uses_virtio_console(""));
}

TEST(Cmdline, KvmPvmWordsOnlyThere) {
    EXPECT_EQ(line({}).find("clearcpuid"), std::string::npos);
    const std::string pvm = line({.user = "", .kvm_pvm = true});
    EXPECT_NE(pvm.find(" noxsave "), std::string::npos);
    const size_t list = pvm.find("clearcpuid=") + std::string_view("clearcpuid=").size();
    EXPECT_LE(pvm.find(' ', list) - list, 127U);  // Linux cuts it there
}

TEST(Cmdline, LengthLimit) {
    const size_t ours = line({}).size() + 1;
    EXPECT_EQ(line({.user = std::string(2047 - ours, 'x')}).size(), 2047U);
    const auto too_long = build_cmdline({.user = std::string(2048 - ours, 'x')});
    ASSERT_FALSE(too_long);
    EXPECT_EQ(too_long.error().kind, ErrorKind::kUsage);
    EXPECT_NE(too_long.error().message.find("2047"), std::string::npos);
}

TEST(Cmdline, MostDevicesFit) {
    EXPECT_LT(line({.user = "", .acpi = false, .virtio_devices = 19, .kvm_pvm = true}).size(),
              1400U);
}

}  // namespace
}  // namespace ivmm
