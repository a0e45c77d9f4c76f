#include "vmm/config/guest_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <fmt/format.h>
#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>

#include "base/toml.h"
#include "base/unique_fd.h"
#include "vmm/config/device_spec.h"
#include "vmm/config/size.h"
#include "vmm/config/validate.h"

namespace ivmm {
namespace {

constexpr size_t kMaxFileSize = size_t{1} << 20;

/// One table of a guest file. Each key that is known takes its value away; the first error stays,
/// and finish() also refuses the keys that nobody has asked for.
class TableReader {
 public:
    TableReader(const toml::table& table, const std::string& path, std::string context)
        : table_(table), path_(path), context_(std::move(context)) {}

    void text(std::string_view key, std::string& out) {
        read<std::string>(key, "a text in quotes", [&](const std::string& value) { out = value; });
    }
    void file(std::string_view key, std::string& out) {
        read<std::string>(key, "a path in quotes", [&](const std::string& value) {
            out = value.empty() ? value
                                : (std::filesystem::path(path_).parent_path() / value).string();
        });
    }
    void boolean(std::string_view key, bool& out) {
        read<bool>(key, "true or false", [&](bool value) { out = value; });
    }
    void number(std::string_view key, uint32_t& out) {
        read<int64_t>(key, "a whole number", [&](int64_t value) {
            if (value < 0 || value > std::numeric_limits<uint32_t>::max()) {
                refuse(key, fmt::format("{} is out of range", value));
                return;
            }
            out = static_cast<uint32_t>(value);
        });
    }
    void size(std::string_view key, uint64_t& out) {
        const toml::node* const node = take(key);
        if (node == nullptr) {
            return;
        }
        if (const auto* const bytes = node->as_integer()) {
            if (bytes->get() < 0) {
                refuse(key, fmt::format("{} is out of range", bytes->get()));
                return;
            }
            out = static_cast<uint64_t>(bytes->get());
        } else if (const auto* const size_text = node->as_string()) {
            const auto parsed = parse_size(size_text->get());
            if (!parsed) {
                refuse(key, parsed.error().message);
                return;
            }
            out = *parsed;
        } else {
            refuse(key, "must be a size such as \"256M\" or a number of bytes");
        }
    }
    void mac(std::string_view key, std::optional<MacAddress>& out) {
        read<std::string>(key, "an address in quotes", [&](const std::string& value) {
            const auto parsed = parse_mac(value);
            if (!parsed) {
                refuse(key, parsed.error().message);
                return;
            }
            out = *parsed;
        });
    }
    /// Calls `use` with the [key] table, if it is there.
    template <class Use>
    void table(std::string_view key, Use&& use) {
        const toml::node* const node = take(key);
        if (node == nullptr) {
            return;
        }
        if (!node->is_table()) {
            refuse(key, fmt::format("must be written as [{}]", key));
            return;
        }
        read_inner(*node->as_table(), fmt::format("in [{}]: ", key), use);
    }
    /// Calls `each` for every [[key]] table, until one fails.
    template <class Each>
    void tables(std::string_view key, Each&& each) {
        const toml::node* const node = take(key);
        if (node == nullptr) {
            return;
        }
        const auto* const array = node->as_array();
        if (array == nullptr || !array->is_homogeneous<toml::table>()) {
            refuse(key, fmt::format("must be written as [[{}]], once for each", key));
            return;
        }
        for (const auto& element : *array) {
            read_inner(*element.as_table(), fmt::format("in [[{}]]: ", key), each);
        }
    }

    Result<void> finish() {
        for (const auto& [key, node] : table_) {
            const std::string_view name = key.str();
            if (error_.empty() && std::find(taken_.begin(), taken_.end(), name) == taken_.end()) {
                error_ =
                    fmt::format("{}:{}: {}unknown key '{}'; known are: {}", path_,
                                key.source().begin.line, context_, name, fmt::join(taken_, ", "));
            }
        }
        if (!error_.empty()) {
            return fail_as(ErrorKind::kUsage, "{}", error_);
        }
        return {};
    }

 private:
    template <class Use>
    void read_inner(const toml::table& table, std::string context, Use& use) {
        TableReader reader(table, path_, std::move(context));
        use(reader);
        if (auto result = reader.finish(); !result && error_.empty()) {
            error_ = std::move(result).error().message;
        }
    }
    const toml::node* take(std::string_view key) {
        taken_.push_back(key);
        return table_.get(key);
    }
    template <class T, class Use>
    void read(std::string_view key, std::string_view wanted, Use&& use) {
        const toml::node* const node = take(key);
        if (node == nullptr) {
            return;
        }
        if (const auto* const value = node->as<T>()) {
            use(value->get());
        } else {
            refuse(key, fmt::format("must be {}", wanted));
        }
    }
    void refuse(std::string_view key, std::string_view reason) {
        if (error_.empty()) {
            error_ = fmt::format("{}:{}: {}{}: {}", path_, table_.get(key)->source().begin.line,
                                 context_, key, reason);
        }
    }

    const toml::table& table_;
    const std::string& path_;
    const std::string context_;
    std::vector<std::string_view> taken_;
    std::string error_;
};

Result<std::string> read_file(const std::string& path) {
    const auto cannot_read = [&](std::string_view reason) {
        return fail_as(ErrorKind::kUsage, "guest file '{}': {}", path, reason);
    };
    // Non-blocking, so that a FIFO does not make us wait for a writer.
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd) {
        return cannot_read(error_text(errno));
    }
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
        return cannot_read(S_ISDIR(info.st_mode) ? "is a directory, not a file"
                                                 : "is not a regular file");
    }
    std::string text;
    std::array<char, 4096> buffer{};
    while (true) {
        const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
        if (n < 0) {
            return cannot_read(error_text(errno));
        }
        if (n == 0) {
            return text;
        }
        text.append(buffer.data(), static_cast<size_t>(n));
        if (text.size() > kMaxFileSize) {
            return cannot_read("is larger than 1 MiB, so it is no guest file");
        }
    }
}

}  // namespace

Result<GuestConfig> load_guest_file(const std::string& path) {
    IVMM_ASSIGN(const auto text, read_file(path));
    return parse_guest_file(text, path);
}

Result<GuestConfig> parse_guest_file(std::string_view text, const std::string& path) {
    const toml::parse_result parsed = toml::parse(text);
    if (!parsed) {
        return fail_as(ErrorKind::kUsage, "{}:{}: {}", path, parsed.error().source().begin.line,
                       parsed.error().description());
    }
    GuestConfig config;
    const std::string stem = std::filesystem::path(path).stem().string();
    if (is_guest_name(stem)) {
        config.name = stem;
    }
    TableReader root(parsed.table(), path, "");
    root.text("name", config.name);
    root.file("kernel", config.kernel);
    root.file("initrd", config.initrd);
    root.text("cmdline", config.cmdline);
    root.size("memory", config.memory_bytes);
    root.number("cpus", config.cpus);
    root.boolean("acpi", config.acpi);
    root.boolean("standby", config.standby);
    root.tables("disk", [&](TableReader& table) {
        DiskConfig& disk = config.disks.emplace_back();
        table.file("path", disk.path);
        table.boolean("read_only", disk.read_only);
        table.text("serial", disk.serial);
    });
    root.tables("net", [&](TableReader& table) {
        NetConfig& net = config.nets.emplace_back();
        std::string host;
        table.text("tap", net.tap);
        table.text("switch", net.switch_name);
        table.text("port", net.port);
        table.mac("mac", net.mac);
        table.text("host", host);
        table.boolean("existing", net.existing);
        if (!host.empty()) {
            net.host_address = host;
        }
    });
    root.table("clones", [&](TableReader& table) {
        CloneSettings& clones = config.clones;
        table.file("hook", clones.hook.program);
        if (!clones.hook.program.empty()) {
            clones.hook.program = std::filesystem::absolute(clones.hook.program).string();
        }
        table.number("hook_timeout_s", clones.hook.timeout_s);
        table.number("lifetime_s", clones.limits.lifetime_s);
        table.size("memory_limit", clones.limits.memory_bytes);
        table.number("at_most", clones.at_most);
        table.boolean("recycle", clones.recycle);
    });
    IVMM_TRY(root.finish());
    return config;
}

}  // namespace ivmm
