#include "vmm/boot/mptable.h"

#include <array>
#include <cassert>
#include <numeric>
#include <vector>

#include "vmm/boot/layout.h"

namespace ivmm {
namespace {

constexpr uint8_t kSpecRevision = 4;  // 1.4
constexpr uint8_t kLocalApicVersion = 0x14;
constexpr uint8_t kIoApicVersion = 0x11;
constexpr uint8_t kIsaBus = 0;
constexpr uint8_t kAllLocalApics = 0xff;

struct FloatingPointer {
    std::array<char, 4> signature = {'_', 'M', 'P', '_'};
    uint32_t table = 0;
    uint8_t paragraphs = 1;  // of 16 bytes
    uint8_t revision = kSpecRevision;
    uint8_t checksum = 0;
    std::array<uint8_t, 5> features{};  // there is a configuration table; virtual wire mode
};
static_assert(sizeof(FloatingPointer) == 16);

struct Header {
    std::array<char, 4> signature = {'P', 'C', 'M', 'P'};
    uint16_t length = 0;
    uint8_t revision = kSpecRevision;
    uint8_t checksum = 0;
    std::array<char, 8> oem = {'I', 'V', 'M', 'M', ' ', ' ', ' ', ' '};
    std::array<char, 12> product = {'I', 'V', 'M', 'M', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};
    uint32_t oem_table = 0;
    uint16_t oem_table_size = 0;
    uint16_t entries = 0;
    uint32_t local_apic = layout::kLocalApic;
    uint32_t extended = 0;
};
static_assert(sizeof(Header) == 44);

struct Processor {
    uint8_t type = 0;
    uint8_t apic_id = 0;
    uint8_t apic_version = kLocalApicVersion;
    uint8_t flags = 0;  // 1: usable, 2: the boot processor
    uint32_t signature = 0;
    uint32_t features = 0x201;  // FPU, APIC
    uint32_t reserved[2]{};
};
static_assert(sizeof(Processor) == 20);

struct IsaBus {
    uint8_t type = 1;
    uint8_t id = kIsaBus;
    std::array<char, 6> name = {'I', 'S', 'A', ' ', ' ', ' '};
};
static_assert(sizeof(IsaBus) == 8);

struct IoApic {
    uint8_t type = 2;
    uint8_t id = layout::kIoApicId;
    uint8_t version = kIoApicVersion;
    uint8_t flags = 1;  // usable
    uint32_t address = layout::kIoApic;
};
static_assert(sizeof(IoApic) == 8);

enum EntryType : uint8_t { kIoInterrupt = 3, kLocalInterrupt = 4 };
enum InterruptType : uint8_t { kVectored = 0, kNmi = 1, kExtInt = 3 };
/// Spelled out rather than "as the bus has it", since ISA has no interrupts above 15.
constexpr uint16_t kEdgeActiveHigh = 0x5;

struct Interrupt {
    uint8_t type;
    uint8_t interrupt_type;
    uint16_t flags;
    uint8_t source_bus;
    uint8_t source_irq;
    uint8_t destination_apic;
    uint8_t destination_pin;
};
static_assert(sizeof(Interrupt) == 8);

/// What makes all the bytes add up to zero, if the checksum is zero among them.
uint8_t checksum(ConstByteSpan bytes) {
    return std::accumulate(bytes.begin(), bytes.end(), uint8_t{0}, [](uint8_t sum, std::byte b) {
        return static_cast<uint8_t>(sum - std::to_integer<uint8_t>(b));
    });
}

class Table {
 public:
    template <class Entry>
    void add(const Entry& entry) {
        const auto bytes = bytes_of(entry);
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
        ++entries_;
    }
    std::vector<std::byte> finish() {
        Header header;
        header.length = static_cast<uint16_t>(sizeof header + bytes_.size());
        header.entries = entries_;
        const auto head = bytes_of(header);
        bytes_.insert(bytes_.begin(), head.begin(), head.end());
        bytes_[offsetof(Header, checksum)] = std::byte{checksum(bytes_)};
        return std::move(bytes_);
    }

 private:
    std::vector<std::byte> bytes_;
    uint16_t entries_ = 0;
};

}  // namespace

Result<void> write_mptable(GuestMemory& memory, uint32_t cpus) {
    assert(cpus >= 1 && cpus <= layout::kMaxCpus);
    Table table;
    for (uint32_t cpu = 0; cpu < cpus; ++cpu) {
        table.add(Processor{.apic_id = static_cast<uint8_t>(cpu),
                            .flags = static_cast<uint8_t>(cpu == 0 ? 3 : 1)});
    }
    table.add(IsaBus{});
    table.add(IoApic{});
    for (uint8_t pin = 0; pin < layout::kIoApicPins; ++pin) {
        table.add(Interrupt{kIoInterrupt, kVectored, kEdgeActiveHigh, kIsaBus, pin,
                            layout::kIoApicId, pin});
    }
    // As KVM has them: the PIC at LINT0, NMI at LINT1.
    table.add(Interrupt{kLocalInterrupt, kExtInt, 0, kIsaBus, 0, kAllLocalApics, 0});
    table.add(Interrupt{kLocalInterrupt, kNmi, 0, kIsaBus, 0, kAllLocalApics, 1});
    const auto bytes = table.finish();
    assert(sizeof(FloatingPointer) + bytes.size() <= layout::kMpTableSize);

    FloatingPointer pointer;
    pointer.table = static_cast<uint32_t>(layout::kMpTable + sizeof pointer);
    pointer.checksum = checksum(bytes_of(pointer));
    if (!memory.write(layout::kMpTable, pointer) || !memory.write(pointer.table, bytes)) {
        return fail("the guest has no RAM at {:#x}", layout::kMpTable);
    }
    return {};
}

}  // namespace ivmm
