#include "vmm/boot/bzimage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <functional>

#include "vmm/boot/layout.h"

namespace ivmm {
namespace {

constexpr uint64_t kMemory = uint64_t{32} << 20;
constexpr Gpa kPreferred = 0x1000000;
constexpr uint64_t kSetupSectors = 2;
constexpr uint64_t kPayloadSize = 0x400;

/// The boot sector and setup code of a bzImage, and a payload.
struct TestImage {
    std::array<std::byte, 0x1f1> boot_sector{};
    setup_header header{};
    std::array<std::byte, (1 + kSetupSectors) * 512 - 0x1f1 - sizeof(setup_header)> setup{};
    std::array<uint8_t, kPayloadSize> payload{};

    TestImage() {
        boot_sector.fill(std::byte{0xbb});  // must not get into the zero page
        setup.fill(std::byte{0xcc});
        payload.fill(0xdd);
        header.setup_sects = kSetupSectors;
        header.syssize = kPayloadSize / 16;
        header.boot_flag = 0xaa55;
        header.jump = 0xeb | (0x1f1 + sizeof(setup_header) - 0x202) << 8;
        header.header = 0x53726448;
        header.version = 0x20f;
        header.loadflags = LOADED_HIGH;
        header.xloadflags = XLF_KERNEL_64;
        header.kernel_alignment = 0x200000;
        header.relocatable_kernel = 1;
        header.pref_address = kPreferred;
        header.init_size = 0x800000;
        header.initrd_addr_max = 0x7fffffff;
        header.cmdline_size = 2047;
        header.setup_data = 0x1234;
    }
};
static_assert(sizeof(TestImage) == (1 + kSetupSectors) * 512 + kPayloadSize);

class BzImage : public testing::Test {
 protected:
    Result<LoadedBzImage> load(ConstByteSpan bytes) {
        fd_.reset(::memfd_create("bzimage", MFD_CLOEXEC));
        EXPECT_EQ(::write(fd_.get(), bytes.data(), bytes.size()),
                  static_cast<ssize_t>(bytes.size()));
        auto file = ImageFile::open("kernel", "/proc/self/fd/" + std::to_string(fd_.get()));
        if (!file) {
            return Unexpected{file.error()};
        }
        EXPECT_TRUE(bytes.size() < 0x206 || is_bzimage(*file));
        return load_bzimage(*file, *memory_);
    }
    std::string refusal(const std::function<void(setup_header&)>& change) {
        TestImage image;
        change(image.header);
        const auto result = load(bytes_of(image));
        EXPECT_FALSE(result);
        EXPECT_EQ(memory_->read<uint8_t>(kPreferred), 0);
        return result ? "" : result.error().message;
    }

    UniqueFd fd_;
    std::unique_ptr<GuestMemory> memory_ = *GuestMemory::create(kMemory);
};

TEST_F(BzImage, LoadsPayloadWhereItWantsToBe) {
    const TestImage image;
    const auto kernel = load(bytes_of(image));
    ASSERT_TRUE(kernel) << kernel.error().message;
    EXPECT_EQ(kernel->start, kPreferred);
    EXPECT_EQ(kernel->end, kPreferred + 0x800000);
    EXPECT_EQ(kernel->initrd_limit, 0x80000000U);
    EXPECT_EQ(memory_->read<decltype(image.payload)>(kPreferred), image.payload);
    EXPECT_EQ(memory_->read<uint8_t>(kPreferred + kPayloadSize), 0);
}

TEST_F(BzImage, FillsTheZeroPage) {
    const auto kernel = load(bytes_of(TestImage{}));
    ASSERT_TRUE(kernel) << kernel.error().message;
    const auto state = prepare_linux64(*memory_, *kernel, 10, {0x1f00000, 0x1234}, 0xe0000);
    ASSERT_TRUE(state) << state.error().message;
    EXPECT_EQ(state->protocol, BootState::Protocol::kLinux64);
    EXPECT_EQ(state->entry, kPreferred + 0x200);
    EXPECT_EQ(state->boot_info, layout::kBootInfo);

    const auto params = *memory_->read<boot_params>(layout::kBootInfo);
    EXPECT_EQ(params.hdr.header, 0x53726448U);
    EXPECT_EQ(params.hdr.type_of_loader, 0xff);
    EXPECT_EQ(params.hdr.cmd_line_ptr, layout::kCmdline);
    EXPECT_EQ(params.hdr.ramdisk_image, 0x1f00000U);
    EXPECT_EQ(params.hdr.ramdisk_size, 0x1234U);
    EXPECT_EQ(params.hdr.setup_data, 0U);
    EXPECT_EQ(params.acpi_rsdp_addr, 0xe0000U);
    EXPECT_EQ(params.sentinel, 0);
    EXPECT_EQ(params.screen_info.orig_video_isVGA, 0);
    EXPECT_EQ(params._pad7[0], 0);  // after the header

    ASSERT_EQ(params.e820_entries, 4);
    EXPECT_EQ(params.e820_table[0].size, 0x9fc00U);
    EXPECT_EQ(params.e820_table[1].type, 2U);
    EXPECT_EQ(params.e820_table[2].addr, 0x100000U);
    EXPECT_EQ(params.e820_table[2].size, kMemory - 0x100000);
    EXPECT_EQ(params.e820_table[2].type, 1U);
}

TEST_F(BzImage, CmdlineLimitOfTheKernel) {
    TestImage image;
    image.header.cmdline_size = 255;
    const auto kernel = load(bytes_of(image));
    ASSERT_TRUE(kernel) << kernel.error().message;
    EXPECT_TRUE(prepare_linux64(*memory_, *kernel, 255, {}, 0));
    const auto result = prepare_linux64(*memory_, *kernel, 256, {}, 0);
    ASSERT_FALSE(result);
    EXPECT_THAT(result.error().message, testing::HasSubstr("255"));
}

TEST_F(BzImage, RefusesOldKernels) {
    const auto kNo64 = testing::HasSubstr("64-bit entry point");
    EXPECT_THAT(refusal([](setup_header& h) { h.version = 0x20b; }), kNo64);
    EXPECT_THAT(refusal([](setup_header& h) { h.xloadflags = 0; }), kNo64);
    EXPECT_THAT(refusal([](setup_header& h) { h.loadflags = 0; }), kNo64);
    // A header that ends before what tells of the entry point.
    EXPECT_THAT(refusal([](setup_header& h) { h.jump = 0x10eb; }), kNo64);
}

TEST_F(BzImage, RefusesTruncatedFiles) {
    const TestImage image;
    for (const size_t size : {size_t{0x206}, size_t{0x240}, size_t{1536}, sizeof image - 1}) {
        const auto result = load(bytes_of(image).first(size));
        ASSERT_FALSE(result);
        EXPECT_THAT(result.error().message, testing::HasSubstr("truncated"));
    }
    const auto kTruncated = testing::HasSubstr("truncated");
    EXPECT_THAT(refusal([](setup_header& h) { h.syssize = 0xffffffff; }), kTruncated);
    EXPECT_THAT(refusal([](setup_header& h) { h.syssize = 0; }), kTruncated);
    EXPECT_THAT(refusal([](setup_header& h) { h.setup_sects = 0xff; }), kTruncated);
    EXPECT_THAT(refusal([](setup_header& h) { h.setup_sects = 0; }), kTruncated);  // means 4
}

TEST_F(BzImage, RefusesImpossiblePlaces) {
    const auto kImpossible = testing::HasSubstr("impossible");
    EXPECT_THAT(refusal([](setup_header& h) { h.kernel_alignment = 0; }), kImpossible);
    EXPECT_THAT(refusal([](setup_header& h) { h.kernel_alignment = 3; }), kImpossible);
    EXPECT_THAT(refusal([](setup_header& h) { h.pref_address = 0x8000; }), kImpossible);
    EXPECT_THAT(refusal([](setup_header& h) { h.pref_address += 0x1000; }), kImpossible);
    const auto kTooLarge = testing::HasSubstr("more memory");
    EXPECT_THAT(refusal([](setup_header& h) { h.init_size = 0x1000001; }), kTooLarge);
    EXPECT_THAT(refusal([](setup_header& h) { h.init_size = 0xffffffff; }), kTooLarge);
    EXPECT_THAT(refusal([](setup_header& h) { h.pref_address = ~uint64_t{0} << 21; }), kTooLarge);
}

}  // namespace
}  // namespace ivmm
