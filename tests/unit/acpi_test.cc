#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>

#include "vmm/boot/acpi/aml.h"
#include "vmm/boot/acpi/tables.h"
#include "vmm/boot/layout.h"

namespace ivmm {
namespace {

using testing::HasSubstr;
using Bytes = std::vector<std::byte>;

Bytes bytes(std::initializer_list<uint8_t> values) {
    Bytes result;
    for (const uint8_t value : values) {
        result.push_back(std::byte{value});
    }
    return result;
}

uint8_t sum(ConstByteSpan data) {
    return std::accumulate(data.begin(), data.end(), uint8_t{0}, [](uint8_t total, std::byte b) {
        return static_cast<uint8_t>(total + std::to_integer<uint8_t>(b));
    });
}

TEST(Aml, Integers) {
    EXPECT_EQ(aml::integer(0), bytes({0x00}));
    EXPECT_EQ(aml::integer(1), bytes({0x01}));
    EXPECT_EQ(aml::integer(2), bytes({0x0a, 0x02}));
    EXPECT_EQ(aml::integer(0x1234), bytes({0x0b, 0x34, 0x12}));
    EXPECT_EQ(aml::integer(0x12345678), bytes({0x0c, 0x78, 0x56, 0x34, 0x12}));
    EXPECT_EQ(aml::eisa_id("PNP0501"), bytes({0x0c, 0x41, 0xd0, 0x05, 0x01}));
}

TEST(Aml, Names) {
    EXPECT_EQ(aml::name("\\_S5", aml::integer(0)), bytes({8, '\\', '_', 'S', '5', '_', 0}));
    EXPECT_EQ(aml::package({aml::integer(5), aml::integer(0)}), bytes({0x12, 5, 2, 0x0a, 5, 0}));
}

TEST(Aml, LengthsTakeAsManyBytesAsTheyNeed) {
    // PkgLength counts itself and the name of four bytes.
    const auto header = [](size_t content) {
        auto result = aml::scope("_SB_", Bytes(content));
        result.resize(5);
        return result;
    };
    EXPECT_EQ(header(58), bytes({0x10, 0x3f, '_', 'S', 'B'}));
    EXPECT_EQ(header(59), bytes({0x10, 0x41, 0x04, '_', 'S'}));
    EXPECT_EQ(header(0xfff - 6), bytes({0x10, 0x4f, 0xff, '_', 'S'}));
    EXPECT_EQ(header(0xfff - 5), bytes({0x10, 0x81, 0x00, 0x01, '_'}));
}

/// The tables by signature, found as a guest finds them.
std::map<std::string, Bytes> read_tables(const GuestMemory& memory, Gpa rsdp) {
    std::map<std::string, Bytes> tables;
    const auto read_table = [&](Gpa start) {
        Bytes table(*memory.read<uint32_t>(start + 4));
        EXPECT_TRUE(memory.read(start, table));
        EXPECT_EQ(sum(table), 0);
        const std::string signature(reinterpret_cast<const char*>(table.data()), 4);
        return tables.emplace(signature, table).first->second;
    };
    std::array<std::byte, 36> pointer{};
    EXPECT_TRUE(memory.read(rsdp, pointer));
    EXPECT_EQ(std::memcmp(pointer.data(), "RSD PTR ", 8), 0);
    EXPECT_EQ(sum(ConstByteSpan(pointer).first(20)), 0);
    EXPECT_EQ(sum(pointer), 0);
    const Bytes xsdt = read_table(load_at<Gpa>(pointer, 24));
    for (size_t at = 36; at < xsdt.size(); at += 8) {
        read_table(load_at<Gpa>(xsdt, at));
    }
    read_table(load_at<Gpa>(tables["FACP"], 140));
    return tables;
}

TEST(AcpiTables, FoundAndChecksummed) {
    auto memory = *GuestMemory::create(1 << 20);
    const auto rsdp = write_acpi_tables(*memory, 8, 19);
    ASSERT_TRUE(rsdp) << rsdp.error().message;
    EXPECT_GE(*rsdp, 0xe0000U);
    auto tables = read_tables(*memory, *rsdp);
    ASSERT_THAT(tables, testing::SizeIs(4));

    const ConstByteSpan fadt(tables["FACP"]);
    EXPECT_EQ(fadt.size(), 276U);
    EXPECT_TRUE(load_at<uint32_t>(fadt, 112) & 1 << 20);  // hardware-reduced
    EXPECT_EQ(load_at<uint64_t>(fadt, 120), 0x602U);
    EXPECT_EQ(load_at<uint64_t>(fadt, 248), 0x600U);
    EXPECT_EQ(load_at<uint64_t>(fadt, 260), 0x601U);

    const ConstByteSpan madt(tables["APIC"]);
    std::map<int, int> count;
    size_t at = 44;
    while (at < madt.size()) {
        ++count[std::to_integer<int>(madt[at])];
        at += std::to_integer<size_t>(madt[at + 1]);
    }
    EXPECT_EQ(at, madt.size());
    EXPECT_EQ(count, (std::map<int, int>{{0, 8}, {1, 1}, {4, 1}}));
}

TEST(AcpiTables, DsdtIsWhatItShouldBe) {
    if (std::system("command -v iasl >/dev/null 2>&1") != 0) {
        GTEST_SKIP() << "iasl (acpica-tools) is not installed";
    }
    auto memory = *GuestMemory::create(1 << 20);
    auto tables = read_tables(*memory, *write_acpi_tables(*memory, 2, 19));
    const std::filesystem::path folder =
        testing::TempDir() + "ivmm-acpi-" + std::to_string(::getpid());
    std::filesystem::create_directory(folder);
    for (const auto& [signature, table] : tables) {
        std::ofstream(folder / (signature + ".aml"), std::ios::binary)
            .write(reinterpret_cast<const char*>(table.data()),
                   static_cast<std::streamsize>(table.size()));
    }
    const std::string in_folder = "cd '" + folder.string() + "' && ";
    EXPECT_EQ(std::system((in_folder + "iasl -d *.aml >log 2>&1").c_str()), 0);
    // And back: the compiler checks more than the disassembler.
    EXPECT_EQ(std::system((in_folder + "iasl -p again -we DSDT.dsl >>log 2>&1").c_str()), 0);
    const auto text_of = [&folder](const char* file) {
        std::ostringstream text;
        text << std::ifstream(folder / file).rdbuf();
        return text.str();
    };
    const std::string dsdt = text_of("DSDT.dsl");
    EXPECT_THAT(dsdt, HasSubstr("Name (_HID, \"LNRO0005\")"));
    EXPECT_THAT(dsdt, HasSubstr("EisaId (\"PNP0501\")"));
    EXPECT_THAT(dsdt, HasSubstr("0xD0012000"));  // the nineteenth
    EXPECT_THAT(dsdt, HasSubstr("Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive"));
    EXPECT_THAT(dsdt, HasSubstr("Name (\\_S5, Package (0x04)"));
    EXPECT_THAT(text_of("FACP.dsl"), HasSubstr("Hardware Reduced (V5) : 1"));
    if (HasFailure()) {
        std::fputs(text_of("log").c_str(), stderr);
    }
    std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace ivmm
