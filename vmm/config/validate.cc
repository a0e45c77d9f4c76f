#include "vmm/config/validate.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "vmm/config/device_spec.h"
#include "vmm/config/size.h"

namespace ivmm {
namespace {

constexpr size_t kMaxName = 64;
constexpr size_t kMaxSerial = 20;     // virtio 1.2, 5.2.6: GET_ID
constexpr size_t kMaxCmdline = 2047;  // Linux on x86: COMMAND_LINE_SIZE with its zero byte
constexpr uint64_t kPageSize = 4096;

template <class... Args>
Unexpected usage(fmt::format_string<Args...> format, Args&&... args) {
    return fail_as(ErrorKind::kUsage, format, std::forward<Args>(args)...);
}

bool is_alnum(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool is_printable(char c) {
    return c >= ' ' && c <= '~';
}

/// The file's metadata, if it is there, is no directory and may be opened in this mode.
Result<struct stat> check_file(std::string_view what, const std::string& path, int mode) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) {
        return usage("{} '{}': {}", what, path, error_text(errno));
    }
    if (S_ISDIR(info.st_mode)) {
        return usage("{} '{}': is a directory, not a file", what, path);
    }
    if (::access(path.c_str(), mode) != 0) {
        return usage("{} '{}': {}", what, path, error_text(errno));
    }
    return info;
}

Result<void> check_memory(uint64_t bytes) {
    if (bytes < kMinMemory) {
        return usage("memory {}: a guest needs at least {}", format_size(bytes),
                     format_size(kMinMemory));
    }
    if (bytes % kPageSize != 0) {
        return usage("memory {}: must be a multiple of 4K", bytes);
    }
    struct sysinfo info {};
    ::sysinfo(&info);
    const uint64_t total = uint64_t{info.totalram} * info.mem_unit;
    if (bytes > total) {
        return usage("memory {}: this host has only {}; use a smaller --mem", format_size(bytes),
                     format_size(total));
    }
    return {};
}

Result<void> check_boot_file(std::string_view what, const std::string& path) {
    IVMM_ASSIGN(const auto info, check_file(what, path, R_OK));
    if (!S_ISREG(info.st_mode)) {
        return usage("{} '{}': is not a regular file", what, path);
    }
    return {};
}

Result<void> check_disks(const std::vector<DiskConfig>& disks) {
    // Two names of one file are found by its inode, two nodes of one block device by its number.
    struct Identity {
        bool block;
        dev_t device;
        ino_t inode;
        // NOLINTNEXTLINE(modernize-use-nullptr): it takes the generated comparison's 0 for ours
        auto operator<=>(const Identity&) const = default;
    };
    std::set<Identity> seen;
    std::set<Identity> seen_writable;
    for (const auto& disk : disks) {
        IVMM_ASSIGN(const auto info,
                    check_file("disk", disk.path, disk.read_only ? R_OK : R_OK | W_OK));
        const bool block = S_ISBLK(info.st_mode);
        if (!block && !S_ISREG(info.st_mode)) {
            return usage("disk '{}': is neither a regular file nor a block device", disk.path);
        }
        if (disk.serial.size() > kMaxSerial ||
            !std::all_of(disk.serial.begin(), disk.serial.end(), is_printable)) {
            return usage("disk '{}': the serial must be at most {} printable ASCII characters",
                         disk.path, kMaxSerial);
        }
        const Identity identity =
            block ? Identity{true, info.st_rdev, 0} : Identity{false, info.st_dev, info.st_ino};
        const bool again = !seen.insert(identity).second;
        if (again && (!disk.read_only || seen_writable.contains(identity))) {
            return usage("disk '{}': given twice; a disk may be shared only if all are read-only",
                         disk.path);
        }
        if (!disk.read_only) {
            seen_writable.insert(identity);
        }
    }
    return {};
}

Result<void> check_host_address(const NetConfig& net) {
    const std::string& text = *net.host_address;
    const size_t slash = text.find('/');
    in_addr address{};
    unsigned prefix = 0;
    bool good = slash != std::string::npos &&
                ::inet_pton(AF_INET, text.substr(0, slash).c_str(), &address) == 1;
    if (good) {
        const char* const end = text.data() + text.size();
        const auto [rest, error] = std::from_chars(text.data() + slash + 1, end, prefix);
        good = error == std::errc() && rest == end && prefix >= 1 && prefix <= 32;
    }
    if (!good) {
        return usage("net '{}': host '{}' is not an address with a prefix such as 10.0.0.1/24",
                     net.tap, text);
    }
    if (net.existing) {
        return usage(
            "net '{}': host= is for a TAP that ivmm creates; an existing one keeps its "
            "addresses",
            net.tap);
    }
    return {};
}

Result<void> check_tap(const NetConfig& net) {
    if (net.tap.empty() || net.tap.size() >= IFNAMSIZ) {
        return usage("net '{}': the name of a TAP device has 1 to {} characters", net.tap,
                     IFNAMSIZ - 1);
    }
    // What the kernel refuses, and '%', which it would replace by a number.
    const auto is_bad = [](char c) {
        return c <= ' ' || c > '~' || c == '/' || c == ':' || c == '%';
    };
    if (net.tap == "." || net.tap == ".." || std::any_of(net.tap.begin(), net.tap.end(), is_bad)) {
        return usage("net '{}': not a name for a TAP device; use letters and digits", net.tap);
    }
    return net.host_address ? check_host_address(net) : Result<void>();
}

Result<void> check_switch(const NetConfig& net) {
    if (!net.tap.empty()) {
        IVMM_TRY(check_tap(net));
    } else if (net.existing || net.host_address) {
        return usage("net '{}': host= and existing are for a tap=", net.switch_name);
    }
    IVMM_TRY(check_guest_name(net.switch_name));
    return net.port.empty() ? Result<void>() : check_guest_name(net.port);
}

Result<void> check_nets(const std::vector<NetConfig>& nets) {
    std::set<std::string> taps;
    std::set<MacAddress> macs;
    for (const auto& net : nets) {
        if (net.switch_name.empty()) {
            IVMM_TRY(check_tap(net));
            if (!net.port.empty()) {
                return usage("net '{}': port= is for a switch", net.tap);
            }
            if (!taps.insert(net.tap).second) {
                return usage("net '{}': given twice", net.tap);
            }
        } else {
            IVMM_TRY(check_switch(net));
        }
        if (net.mac) {
            if ((*net.mac)[0] & 1 || *net.mac == MacAddress{}) {
                return usage(
                    "net '{}': {} is not the address of one machine; use for example "
                    "02:00:00:00:00:01",
                    net.tap, format_mac(*net.mac));
            }
            if (!macs.insert(*net.mac).second) {
                return usage("net '{}': the MAC address {} is given twice", net.tap,
                             format_mac(*net.mac));
            }
        }
    }
    return {};
}

Result<void> check_hook(const CloneHook& hook) {
    if (hook.timeout_s < 1 || hook.timeout_s > CloneHook::kMostSeconds) {
        return usage("a clone's hook may take 1 to {} seconds, not {}", CloneHook::kMostSeconds,
                     hook.timeout_s);
    }
    if (hook.program.empty()) {
        return {};
    }
    if (hook.program.front() != '/') {
        return usage("hook '{}': must be an absolute path", hook.program);
    }
    IVMM_ASSIGN(const auto info, check_file("hook", hook.program, X_OK));
    if (!S_ISREG(info.st_mode)) {
        return usage("hook '{}': is not a regular file", hook.program);
    }
    return {};
}

/// Everything but its name, its kernel and its network.
Result<void> check_hardware(const GuestConfig& config) {
    if (config.cmdline.size() > kMaxCmdline) {
        return usage("the kernel command line has {} characters; a kernel takes at most {}",
                     config.cmdline.size(), kMaxCmdline);
    }
    const auto is_control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; };
    if (std::any_of(config.cmdline.begin(), config.cmdline.end(), is_control)) {
        return usage("the kernel command line must be one line without control characters");
    }
    IVMM_TRY(check_memory(config.memory_bytes));
    if (config.cpus < 1 || config.cpus > kMaxCpus) {
        return usage("{} vCPUs: a guest has 1 to {}", config.cpus, kMaxCpus);
    }
    return check_disks(config.disks);
}

}  // namespace

bool is_guest_name(std::string_view name) {
    return !name.empty() && name.size() <= kMaxName && is_alnum(name.front()) &&
           std::all_of(name.begin(), name.end(),
                       [](char c) { return is_alnum(c) || c == '.' || c == '_' || c == '-'; });
}

Result<void> check_guest_name(std::string_view name) {
    if (!is_guest_name(name)) {
        return usage(
            "'{}' is not a name for a guest: a letter or digit, then at most {} letters, "
            "digits, '.', '_' or '-'",
            name, kMaxName - 1);
    }
    return {};
}

Result<void> check_clone_life(const CloneHook& hook, const CloneLimits& limits) {
    if (limits.lifetime_s > CloneLimits::kMostSeconds) {
        return usage("a clone may live for at most {} seconds (or 0: without end)",
                     CloneLimits::kMostSeconds);
    }
    if (limits.memory_bytes != 0 && limits.memory_bytes < kMinMemory) {
        return usage("a clone's memory limit must be at least {}", format_size(kMinMemory));
    }
    return check_hook(hook);
}

Result<void> check_clone_settings(const CloneSettings& settings) {
    if (settings.at_most < 1 || settings.at_most > kMostClones) {
        return usage("{} clones at the same time: write 1 to {}", settings.at_most, kMostClones);
    }
    return check_clone_life(settings.hook, settings.limits);
}

Result<void> validate(const GuestConfig& config) {
    IVMM_TRY(check_guest_name(config.name));
    if (config.kernel.empty()) {
        return usage("no kernel given; use --kernel FILE or a guest file with a kernel");
    }
    IVMM_TRY(check_boot_file("kernel", config.kernel));
    if (!config.initrd.empty()) {
        IVMM_TRY(check_boot_file("initrd", config.initrd));
    }
    IVMM_TRY(check_hardware(config));
    IVMM_TRY(check_clone_settings(config.clones));
    return check_nets(config.nets);
}

Result<void> validate_saved(const GuestConfig& config) {
    IVMM_TRY(check_guest_name(config.name));
    IVMM_TRY(check_hardware(config));
    auto connected = config.nets;
    std::erase_if(connected, [](const NetConfig& net) { return !net.has_cable(); });
    return check_nets(connected);
}

}  // namespace ivmm
