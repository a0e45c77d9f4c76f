#include "vmm/config/guest_config.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "tests/support/temp_dir.h"
#include "vmm/config/device_spec.h"
#include "vmm/config/guest_file.h"
#include "vmm/config/size.h"
#include "vmm/config/validate.h"

namespace ivmm {
namespace {

using ::testing::HasSubstr;

TEST(Size, SuffixesAndNumbers) {
    EXPECT_EQ(*parse_size("4096"), 4096u);
    EXPECT_EQ(*parse_size("1K"), 1024u);
    EXPECT_EQ(*parse_size("256M"), uint64_t{256} << 20);
    EXPECT_EQ(*parse_size("2g"), uint64_t{2} << 30);
    EXPECT_EQ(*parse_size("16777215T"), uint64_t{16777215} << 40);
}

TEST(Size, RefusesWhatIsNoSize) {
    for (const char* const text : {"", "M", "-1", "+1", " 1", "1 M", "1MB", "1.5G", "0x10", "1P",
                                   "18446744073709551616", "16777216T", "18446744073709551615K"}) {
        const auto size = parse_size(text);
        ASSERT_FALSE(size) << text;
        EXPECT_EQ(size.error().kind, ErrorKind::kUsage);
    }
}

TEST(Size, Format) {
    EXPECT_EQ(format_size(0), "0");
    EXPECT_EQ(format_size(700), "700");
    EXPECT_EQ(format_size(uint64_t{256} << 20), "256M");
    EXPECT_EQ(format_size(uint64_t{1536} << 20), "1.5G");
}

TEST(GuestFile, Clones) {
    const auto config = parse_guest_file(
        "kernel = \"k\"\n[clones]\nhook = \"hook.sh\"\nhook_timeout_s = 3\nlifetime_s = 3600\n"
        "memory_limit = \"64M\"\nat_most = 4\nrecycle = true\n",
        "/etc/web.toml");
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->clones,
              (CloneSettings{{"/etc/hook.sh", 3}, {3600, uint64_t{64} << 20}, 4, true}));
    EXPECT_EQ(parse_guest_file("", "a.toml")->clones, CloneSettings());
    EXPECT_THAT(parse_guest_file("clones = 1", "a.toml").error().message, HasSubstr("[clones]"));
    EXPECT_THAT(parse_guest_file("[clones]\nhooks = 1", "a.toml").error().message,
                HasSubstr("a.toml:2: in [clones]: unknown key 'hooks'"));
}

TEST(Validate, ClonesOfAGuest) {
    EXPECT_TRUE(check_clone_settings({}));
    EXPECT_TRUE(check_clone_settings({{"/bin/sh", 60}, {1, kMinMemory}, kMostClones, true}));
    for (const CloneSettings& bad :
         std::vector<CloneSettings>{{{"bin/sh", 1}, {}, 1, false},
                                    {{"/nonexistent", 1}, {}, 1, false},
                                    {{"/etc/passwd", 1}, {}, 1, false},
                                    {{"/etc", 1}, {}, 1, false},
                                    {{"/bin/sh", 0}, {}, 1, false},
                                    {{"/bin/sh", 61}, {}, 1, false},
                                    {{}, {CloneLimits::kMostSeconds + 1, 0}, 1, false},
                                    {{}, {0, kMinMemory - 1}, 1, false},
                                    {{}, {}, 0, false},
                                    {{}, {}, kMostClones + 1, false}}) {
        const auto refused = check_clone_settings(bad);
        ASSERT_FALSE(refused) << bad.hook.program << bad.at_most;
        EXPECT_EQ(refused.error().kind, ErrorKind::kUsage);
    }
}

TEST(DeviceSpec, Disk) {
    EXPECT_EQ(*parse_disk_spec("a.img"), (DiskConfig{"a.img", false, ""}));
    EXPECT_EQ(*parse_disk_spec("/x/a.img,ro,serial=S1"), (DiskConfig{"/x/a.img", true, "S1"}));
    EXPECT_FALSE(parse_disk_spec(""));
    EXPECT_FALSE(parse_disk_spec(",ro"));
    EXPECT_FALSE(parse_disk_spec("a,rw"));
    EXPECT_FALSE(parse_disk_spec("a,"));
}

TEST(DeviceSpec, Net) {
    const auto net = parse_net_spec("tap=t0,mac=02:00:00:00:00:fE,host=10.0.0.1/24");
    ASSERT_TRUE(net);
    EXPECT_EQ(net->tap, "t0");
    EXPECT_EQ(*net->mac, (MacAddress{2, 0, 0, 0, 0, 0xfe}));
    EXPECT_EQ(*net->host_address, "10.0.0.1/24");
    EXPECT_FALSE(net->existing);
    EXPECT_TRUE(parse_net_spec("existing,tap=t0")->existing);
    for (const char* const spec :
         {"", "t0", "mac=02:00:00:00:00:01", "tap=", "tap=t,mac=1:2", "tap=t,mac=02:00:00:00:00:0g",
          "tap=t,mac=02-00-00-00-00-01", "tap=t,mac=02:00:00:00:00:01:03", "tap=t,bogus"}) {
        EXPECT_FALSE(parse_net_spec(spec)) << spec;
    }
}

TEST(GuestName, Rules) {
    EXPECT_TRUE(is_guest_name("a"));
    EXPECT_TRUE(is_guest_name("9.web_1-x"));
    EXPECT_TRUE(is_guest_name(std::string(64, 'a')));
    EXPECT_FALSE(is_guest_name(std::string(65, 'a')));
    for (const char* const name : {"", ".", "..", "-d", "_a", "a/b", "a b", "\xc3\xa4", "a\n"}) {
        EXPECT_FALSE(is_guest_name(name)) << name;
    }
}

TEST(GuestFile, Everything) {
    const auto config = parse_guest_file(R"(
        name = "web"
        kernel = "vmlinux"
        initrd = "/abs/initrd"
        cmdline = "quiet"
        memory = "512M"
        cpus = 2
        acpi = false
        [[disk]]
        path = "root.img"
        serial = "S"
        [[disk]]
        path = "/data"
        read_only = true
        [[net]]
        tap = "t0"
        mac = "02:00:00:00:00:01"
        host = "10.0.0.1/24"
        [[net]]
        tap = "t1"
        existing = true
    )",
                                         "/etc/guests/x.toml");
    ASSERT_TRUE(config) << config.error().message;
    GuestConfig wanted;
    wanted.name = "web";
    wanted.kernel = "/etc/guests/vmlinux";
    wanted.initrd = "/abs/initrd";
    wanted.cmdline = "quiet";
    wanted.memory_bytes = uint64_t{512} << 20;
    wanted.cpus = 2;
    wanted.acpi = false;
    wanted.disks = {{"/etc/guests/root.img", false, "S"}, {"/data", true, ""}};
    wanted.nets = {{"t0", false, MacAddress{2, 0, 0, 0, 0, 1}, "10.0.0.1/24"},
                   {"t1", true, std::nullopt, std::nullopt}};
    EXPECT_EQ(*config, wanted);
}

TEST(GuestFile, NameComesFromTheFile) {
    EXPECT_EQ(parse_guest_file("", "dir/web.toml")->name, "web");
    EXPECT_EQ(parse_guest_file("", "dir/we b.toml")->name, "");
    EXPECT_EQ(parse_guest_file("memory = 33554432", "x")->memory_bytes, 33554432u);
}

TEST(GuestFile, ErrorsNameFileAndLine) {
    const auto error_of = [](const char* text) {
        const auto config = parse_guest_file(text, "g.toml");
        EXPECT_FALSE(config) << text;
        EXPECT_EQ(config.error().kind, ErrorKind::kUsage);
        return config.error().message;
    };
    EXPECT_THAT(error_of("kernel = 'k'\nmemroy = '1G'"),
                testing::AllOf(HasSubstr("g.toml:2: unknown key 'memroy'"), HasSubstr("memory")));
    EXPECT_THAT(error_of("\n\nkernel = 7"), HasSubstr("g.toml:3: kernel: must be"));
    EXPECT_THAT(error_of("memory = '1X'"), HasSubstr("g.toml:1: memory: '1X' is not a size"));
    EXPECT_THAT(error_of("memory = -1"), HasSubstr("out of range"));
    EXPECT_THAT(error_of("memory = 1.5"), HasSubstr("must be a size"));
    EXPECT_THAT(error_of("cpus = 4294967297"), HasSubstr("out of range"));
    EXPECT_THAT(error_of("cpus = -1"), HasSubstr("out of range"));
    EXPECT_THAT(error_of("acpi = 'no'"), HasSubstr("true or false"));
    EXPECT_THAT(error_of("disk = 'x'"), HasSubstr("[[disk]]"));
    EXPECT_THAT(error_of("[\n"), HasSubstr("g.toml:1: "));
    EXPECT_THAT(error_of("[[disk]]\nfile = 'x'"),
                HasSubstr("g.toml:2: in [[disk]]: unknown key 'file'"));
    EXPECT_THAT(error_of("[[net]]\ntap='t'\nmac='zz'"), HasSubstr("g.toml:3: in [[net]]: mac: "));
    EXPECT_THAT(error_of("kernel = \n"), HasSubstr("g.toml:1: "));
    EXPECT_THAT(error_of("kernel = '\xff'"), HasSubstr("g.toml:1: "));
}

TEST(GuestFile, Unreadable) {
    const test::TempDir dir;
    EXPECT_THAT(load_guest_file(dir.path() + "/none").error().message, HasSubstr("No such file"));
    EXPECT_THAT(load_guest_file(dir.path()).error().message, HasSubstr("is a directory"));
    EXPECT_THAT(load_guest_file(dir.file("big", std::string(2 << 20, '#'))).error().message,
                HasSubstr("larger than 1 MiB"));
    EXPECT_TRUE(load_guest_file(dir.file("ok.toml", "cpus = 3")));
}

class Validation : public testing::Test {
 protected:
    Validation() {
        config_.name = "g";
        config_.kernel = dir_.file("kernel");
    }
    std::string refusal() {
        const auto result = validate(config_);
        if (result) {
            return "accepted";
        }
        EXPECT_EQ(result.error().kind, ErrorKind::kUsage);
        return result.error().message;
    }
    test::TempDir dir_;
    GuestConfig config_;
};

TEST_F(Validation, AcceptsAGoodGuest) {
    config_.disks = {
        {dir_.file("a"), false, "S"}, {dir_.file("b"), true, ""}, {dir_.path() + "/b", true, ""}};
    config_.nets = {{"t0", false, MacAddress{2, 0, 0, 0, 0, 1}, "10.0.0.1/24"},
                    {"t1", true, std::nullopt, std::nullopt}};
    EXPECT_EQ(refusal(), "accepted");
}

TEST_F(Validation, KernelAndInitrd) {
    config_.kernel = "";
    EXPECT_THAT(refusal(), HasSubstr("no kernel"));
    config_.kernel = dir_.path();
    EXPECT_THAT(refusal(), HasSubstr("is a directory"));
    config_.kernel = dir_.path() + "/missing";
    EXPECT_THAT(refusal(), HasSubstr("No such file"));
    config_.kernel = "/dev/null";
    EXPECT_THAT(refusal(), HasSubstr("not a regular file"));
    config_.kernel = dir_.file("kernel");
    config_.initrd = dir_.path() + "/missing";
    EXPECT_THAT(refusal(), HasSubstr("initrd"));
}

TEST_F(Validation, Memory) {
    config_.memory_bytes = 0;
    EXPECT_THAT(refusal(), HasSubstr("at least 16M"));
    config_.memory_bytes = kMinMemory + 1;
    EXPECT_THAT(refusal(), HasSubstr("multiple of 4K"));
    config_.memory_bytes = uint64_t{1} << 50;
    EXPECT_THAT(refusal(), HasSubstr("this host has only"));
    config_.memory_bytes = kMinMemory;
    EXPECT_EQ(refusal(), "accepted");
}

TEST_F(Validation, CpusNameAndCommandLine) {
    for (const uint32_t cpus : {0u, 9u}) {
        config_.cpus = cpus;
        EXPECT_THAT(refusal(), HasSubstr("1 to 8"));
    }
    config_.cpus = 8;
    EXPECT_EQ(refusal(), "accepted");
    config_.cmdline = "a\nb";
    EXPECT_THAT(refusal(), HasSubstr("control characters"));
    config_.cmdline = std::string(2048, 'a');
    EXPECT_THAT(refusal(), HasSubstr("2048 characters"));
    config_.cmdline = "";
    config_.name = "a/b";
    EXPECT_THAT(refusal(), HasSubstr("not a name"));
}

TEST_F(Validation, Disks) {
    config_.disks = {{dir_.path() + "/missing", false, ""}};
    EXPECT_THAT(refusal(), HasSubstr("No such file"));
    config_.disks = {{dir_.path(), false, ""}};
    EXPECT_THAT(refusal(), HasSubstr("is a directory"));
    config_.disks = {{"/dev/null", false, ""}};
    EXPECT_THAT(refusal(), HasSubstr("neither"));
    const std::string disk = dir_.file("d");
    config_.disks = {{disk, false, std::string(21, 's')}};
    EXPECT_THAT(refusal(), HasSubstr("serial"));
    std::filesystem::create_hard_link(disk, dir_.path() + "/link");
    for (const auto& [first, second] : {std::pair{false, false}, {true, false}, {false, true}}) {
        config_.disks = {{disk, first, ""}, {dir_.path() + "/link", second, ""}};
        EXPECT_THAT(refusal(), HasSubstr("given twice"));
    }
}

TEST_F(Validation, Nets) {
    const auto refusal_of = [&](NetConfig net) {
        config_.nets = {std::move(net)};
        return refusal();
    };
    EXPECT_THAT(refusal_of({"a234567890123456", false, {}, {}}), HasSubstr("1 to 15"));
    EXPECT_THAT(refusal_of({"tap%d", false, {}, {}}), HasSubstr("not a name"));
    EXPECT_THAT(refusal_of({"a/b", false, {}, {}}), HasSubstr("not a name"));
    EXPECT_THAT(refusal_of({"..", false, {}, {}}), HasSubstr("not a name"));
    EXPECT_THAT(refusal_of({"t", false, MacAddress{1}, {}}), HasSubstr("not the address"));
    EXPECT_THAT(refusal_of({"t", false, MacAddress{}, {}}), HasSubstr("not the address"));
    for (const char* const host :
         {"10.0.0.1", "10.0.0.1/33", "10.0.0.1/0", "10.0.0/8", "x/8", "10.0.0.1/8x", "10.0.0.1/"}) {
        EXPECT_THAT(refusal_of({"t", false, {}, host}), HasSubstr("not an address")) << host;
    }
    EXPECT_THAT(refusal_of({"t", true, {}, "10.0.0.1/8"}), HasSubstr("keeps its addresses"));
    config_.nets = {{"t", false, {}, {}}, {"t", false, {}, {}}};
    EXPECT_THAT(refusal(), HasSubstr("given twice"));
    config_.nets = {{"t", false, MacAddress{2}, {}}, {"u", false, MacAddress{2}, {}}};
    EXPECT_THAT(refusal(), HasSubstr("given twice"));
}

}  // namespace
}  // namespace ivmm
