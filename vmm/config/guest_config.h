#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vmm/config/clone_settings.h"

namespace ivmm {

using MacAddress = std::array<uint8_t, 6>;

struct DiskConfig {
    std::string path;  ///< a regular file or a block device
    bool read_only = false;
    std::string serial;  ///< what GET_ID answers; at most 20 bytes

    static constexpr uint32_t kVersion = 1;
    bool operator==(const DiskConfig&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.path, self.read_only, self.serial);
    }
};

struct NetConfig {
    std::string tap;                ///< name of the TAP device; with a switch: of its uplink
    bool existing = false;          ///< attach to a TAP that is there; else one is created
    std::optional<MacAddress> mac;  ///< of the guest; default: derived from name and index
    std::optional<std::string> host_address;  ///< "10.0.0.1/24": set on a created TAP
    /// The cable leads to this switch (docs/switch.md). With `tap`, `ivmm run` starts it if it is
    /// not there.
    std::string switch_name = {};
    std::string port = {};  ///< of the switch; default: made from name and index

    /// Otherwise there is no cable (only of clones).
    bool has_cable() const { return !tap.empty() || !switch_name.empty(); }

    static constexpr uint32_t kVersion = 2;
    bool operator==(const NetConfig&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.tap, self.existing, self.mac, self.host_address, self.switch_name, self.port);
    }
};

/// Everything that describes a guest; from a TOML file and the command line. Saved with the guest
/// (base/state_codec.h), but for what is said of its clones.
struct GuestConfig {
    std::string name;
    std::string kernel;   ///< ELF with a PVH note, or bzImage
    std::string initrd;   ///< empty: none
    std::string cmdline;  ///< the user's part of the kernel command line
    uint64_t memory_bytes = uint64_t{256} << 20;
    uint32_t cpus = 1;     ///< 1 to 8
    bool standby = false;  ///< keep a standby in sync from the start
    bool acpi = true;      ///< false: no ACPI tables; MP table and virtio_mmio.device= instead
    std::vector<DiskConfig> disks;
    std::vector<NetConfig> nets;
    CloneSettings clones;

    static constexpr uint32_t kVersion = 1;
    bool operator==(const GuestConfig&) const = default;
    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.name, self.kernel, self.initrd, self.cmdline, self.memory_bytes, self.cpus,
              self.standby, self.acpi, self.disks, self.nets);
    }
};

}  // namespace ivmm
