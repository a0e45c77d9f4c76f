#include "vmm/boot/acpi/tables.h"

#include <cassert>
#include <cstring>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/checked.h"
#include "devices/platform/power.h"
#include "devices/serial/serial.h"
#include "vmm/boot/acpi/aml.h"
#include "vmm/boot/layout.h"

namespace ivmm {
namespace {

using aml::Bytes;

constexpr std::string_view kOemId = "IVMM  ";
constexpr std::string_view kOemTableId = "IVMM    ";

/// Bytes of a table, set at the offsets that the specification gives.
void put(Bytes& table, size_t offset, size_t width, uint64_t value) {
    store_le(ByteSpan(table).subspan(offset, width), value);
}
void put_text(Bytes& table, size_t offset, std::string_view text) {
    std::memcpy(ByteSpan(table).subspan(offset, text.size()).data(), text.data(), text.size());
}
/// Sets the byte that makes the first `length` bytes add up to zero.
void put_checksum(Bytes& table, size_t offset, size_t length) {
    const auto bytes = ConstByteSpan(table).first(length);
    const uint8_t sum =
        std::accumulate(bytes.begin(), bytes.end(), uint8_t{0}, [](uint8_t total, std::byte b) {
            return static_cast<uint8_t>(total - std::to_integer<uint8_t>(b));
        });
    table[offset] = std::byte{sum};
}

/// System description table header (5.2.6).
constexpr size_t kHeaderSize = 36;
constexpr size_t kChecksumOffset = 9;

Bytes begin_table(std::string_view signature, uint8_t revision, size_t size) {
    Bytes table(size);
    put_text(table, 0, signature);
    put(table, 8, 1, revision);
    put_text(table, 10, kOemId);
    put_text(table, 16, kOemTableId);
    put(table, 24, 4, 1);  // OEM revision
    put_text(table, 28, "IVMM");
    put(table, 32, 4, 1);  // creator revision
    return table;
}

void finish_table(Bytes& table) {
    put(table, 4, 4, table.size());
    put_checksum(table, kChecksumOffset, table.size());
}

Bytes processor(uint32_t cpu) {
    return aml::device(fmt::format("CP{:02}", cpu), {aml::name("_HID", aml::string("ACPI0007")),
                                                     aml::name("_UID", aml::integer(cpu))});
}

Bytes serial_port() {
    const auto resources =
        aml::resource_template({aml::io_ports(layout::kSerialPort, Serial::kPortCount),
                                aml::edge_interrupt(layout::kSerialGsi)});
    return aml::device("COM1", {aml::name("_HID", aml::eisa_id("PNP0501")),
                                aml::name("_UID", aml::integer(0)), aml::name("_CRS", resources)});
}

Bytes pvpanic() {
    const auto resources = aml::resource_template({aml::io_ports(layout::kPvpanicPort, 1)});
    return aml::device("PEVT",
                       {aml::name("_HID", aml::string("QEMU0001")), aml::name("_CRS", resources)});
}

Bytes virtio_device(uint32_t index) {
    const auto start = static_cast<uint32_t>(layout::virtio_mmio(index));
    const auto resources =
        aml::resource_template({aml::memory32_fixed(start, layout::kVirtioMmioSize),
                                aml::edge_interrupt(layout::virtio_gsi(index))});
    return aml::device(fmt::format("VR{:02}", index),
                       {aml::name("_HID", aml::string("LNRO0005")),
                        aml::name("_UID", aml::integer(index)), aml::name("_CRS", resources)});
}

Bytes make_dsdt(uint32_t cpus, uint32_t virtio_devices) {
    Bytes devices = aml::join({serial_port(), pvpanic()});
    // Every processor of the MADT has to be a device too; Linux complains from 6.11 on.
    for (uint32_t cpu = 0; cpu < cpus; ++cpu) {
        devices = aml::join({devices, processor(cpu)});
    }
    for (uint32_t i = 0; i < virtio_devices; ++i) {
        devices = aml::join({devices, virtio_device(i)});
    }
    // What SLP_TYP of the sleep control register must be to switch off (7.4.2).
    const auto off = aml::package({aml::integer(PowerControl::kSleepTypeOff), aml::integer(0),
                                   aml::integer(0), aml::integer(0)});
    Bytes table = aml::join({begin_table("DSDT", 2, kHeaderSize), aml::scope("\\_SB", devices),
                             aml::name("\\_S5", off)});
    finish_table(table);
    return table;
}

/// Multiple APIC description table (5.2.12).
Bytes make_madt(uint32_t cpus) {
    constexpr size_t kEntriesOffset = 44;
    constexpr size_t kLocalApicSize = 8;
    constexpr size_t kIoApicSize = 12;
    constexpr size_t kNmiSize = 6;
    constexpr uint32_t kPcatCompatible = 1;  // KVM has the two 8259 as well
    constexpr uint8_t kAllProcessors = 0xff;
    Bytes table =
        begin_table("APIC", 5, kEntriesOffset + cpus * kLocalApicSize + kIoApicSize + kNmiSize);
    put(table, 36, 4, layout::kLocalApic);
    put(table, 40, 4, kPcatCompatible);
    size_t at = kEntriesOffset;
    for (uint32_t cpu = 0; cpu < cpus; ++cpu) {
        put(table, at, 1, 0);
        put(table, at + 1, 1, kLocalApicSize);
        put(table, at + 2, 1, cpu);  // the _UID of the processor's device
        put(table, at + 3, 1, cpu);  // its local APIC's id
        put(table, at + 4, 4, 1);    // enabled
        at += kLocalApicSize;
    }
    put(table, at, 1, 1);
    put(table, at + 1, 1, kIoApicSize);
    put(table, at + 2, 1, layout::kIoApicId);
    put(table, at + 4, 4, layout::kIoApic);
    put(table, at + 8, 4, 0);  // its first GSI
    at += kIoApicSize;
    // No interrupt source overrides: ISA interrupts are edge-triggered and active high, and are
    // the pins of the same number.
    put(table, at, 1, 4);
    put(table, at + 1, 1, kNmiSize);
    put(table, at + 2, 1, kAllProcessors);
    put(table, at + 5, 1, 1);  // LINT1
    finish_table(table);
    return table;
}

/// Fixed ACPI description table, revision 6.3 (5.2.9).
Bytes make_fadt(Gpa dsdt) {
    constexpr size_t kSize = 276;
    // The keyboard controller is not told of: it is there only to be written a reset to.
    constexpr uint64_t kBootArchNoVga = 1 << 2;
    constexpr uint64_t kBootArchNoCmosRtc = 1 << 5;
    constexpr uint64_t kWbinvd = 1 << 0;
    constexpr uint64_t kC1OnAll = 1 << 2;
    constexpr uint64_t kNoFixedPowerButton = 1 << 4;
    constexpr uint64_t kNoFixedSleepButton = 1 << 5;
    constexpr uint64_t kResetRegister = 1 << 10;
    constexpr uint64_t kHeadless = 1 << 12;
    constexpr uint64_t kHardwareReduced = 1 << 20;
    constexpr uint8_t kEnterpriseServer = 4;

    Bytes table = begin_table("FACP", 6, kSize);
    // Generic address structure (5.2.3.2) of an 8-bit register in I/O space.
    const auto put_register = [&table](size_t offset, uint16_t port) {
        put(table, offset, 1, 1);
        put(table, offset + 1, 1, 8);
        put(table, offset + 3, 1, 1);
        put(table, offset + 4, 8, port);
    };
    put(table, 45, 1, kEnterpriseServer);
    put(table, 109, 2, kBootArchNoVga | kBootArchNoCmosRtc);
    put(table, 112, 4,
        kWbinvd | kC1OnAll | kNoFixedPowerButton | kNoFixedSleepButton | kResetRegister |
            kHeadless | kHardwareReduced);
    put_register(116, layout::kPowerPorts + PowerControl::kReset);
    put(table, 128, 1, PowerControl::kResetValue);
    put(table, 131, 1, 3);  // minor revision
    put(table, 140, 8, dsdt);
    put_register(244, layout::kPowerPorts + PowerControl::kSleepControl);
    put_register(256, layout::kPowerPorts + PowerControl::kSleepStatus);
    put_text(table, 268, kOemTableId);  // hypervisor vendor
    finish_table(table);
    return table;
}

Bytes make_xsdt(std::span<const Gpa> tables) {
    Bytes table = begin_table("XSDT", 1, kHeaderSize + tables.size() * sizeof(Gpa));
    for (size_t i = 0; i < tables.size(); ++i) {
        put(table, kHeaderSize + i * sizeof(Gpa), sizeof(Gpa), tables[i]);
    }
    finish_table(table);
    return table;
}

/// Root system description pointer, revision 2 (5.2.5.3).
Bytes make_rsdp(Gpa xsdt) {
    constexpr size_t kSize = 36;
    constexpr size_t kOldSize = 20;  // of ACPI 1.0; it has a checksum of its own
    Bytes table(kSize);
    put_text(table, 0, "RSD PTR ");
    put_text(table, 9, kOemId);
    put(table, 15, 1, 2);
    put(table, 20, 4, kSize);
    put(table, 24, 8, xsdt);
    put_checksum(table, 8, kOldSize);
    put_checksum(table, 32, kSize);
    return table;
}

}  // namespace

Result<Gpa> write_acpi_tables(GuestMemory& memory, uint32_t cpus, uint32_t virtio_devices) {
    assert(cpus >= 1 && cpus <= layout::kMaxCpus);
    assert(virtio_devices <= layout::kMaxVirtioDevices);
    Gpa next = layout::kAcpiTables;
    bool ok = true;
    const auto place = [&](const Bytes& table) {
        const Gpa start = next;
        ok = ok && memory.write(start, table);
        next = align_up<Gpa>(start + table.size(), 16);
        assert(next <= layout::kAcpiTablesEnd);
        return start;
    };
    const Gpa dsdt = place(make_dsdt(cpus, virtio_devices));
    const Gpa fadt = place(make_fadt(dsdt));
    const Gpa madt = place(make_madt(cpus));
    const Gpa xsdt = place(make_xsdt(std::vector<Gpa>{fadt, madt}));
    if (!ok || !memory.write(layout::kRsdp, make_rsdp(xsdt))) {
        return fail("the guest has no RAM at {:#x}", layout::kRsdp);
    }
    return layout::kRsdp;
}

}  // namespace ivmm
