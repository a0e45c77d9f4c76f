#include "storage/layer/store_open.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <algorithm>
#include <array>
#include <climits>
#include <cstdlib>

#include "base/log.h"
#include "storage/layer/files.h"
#include "storage/layer/layer_directories.h"

namespace ivmm::storage {

namespace {

constexpr std::array<const char*, 3> kDirectories = {"layers", "views", "locks"};

Result<std::string> real_path(const std::string& path) {
    std::array<char, PATH_MAX> buffer{};
    if (::realpath(path.c_str(), buffer.data()) == nullptr) {
        return fail_errno("{}", path);
    }
    return std::string(buffer.data());
}

Result<std::vector<std::string>> real_branches(const std::vector<std::string>& lower) {
    std::vector<std::string> paths;
    for (const auto& branch : lower) {
        auto path = real_path(branch);
        if (!path) {
            return annotate(std::move(path).error(), "lower branch");
        }
        paths.push_back(*std::move(path));
    }
    return paths;
}

/// A random UUID (version 4).
Result<std::string> make_uuid() {
    std::array<uint8_t, 16> bytes{};
    if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
        return fail_errno("getrandom");
    }
    bytes[6] = static_cast<uint8_t>((bytes[6] & 0x0f) | 0x40);
    bytes[8] = static_cast<uint8_t>((bytes[8] & 0x3f) | 0x80);
    std::string text;
    for (size_t i = 0; i < bytes.size(); ++i) {
        text += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", bytes[i]);
    }
    return text;
}

Result<void> lock_directory(const StoreDirs& store, int operation) {
    while (::flock(store.root.get(), operation) != 0) {
        if (errno != EINTR) {
            return fail_errno("cannot lock {}", store.path);
        }
    }
    return {};
}

/// Whether the directory is empty, or a creation of a store has stopped early in it.
Result<bool> is_free(const StoreDirs& store) {
    bool free = true;
    const auto seen = for_each_entry(
        store.root.get(), [&](const char* name, unsigned char type) -> PosixResult<void> {
            const std::string_view entry = name;
            if (std::ranges::find(kDirectories, entry) != kDirectories.end() && type == DT_DIR) {
                IVMM_ASSIGN(const auto directory, open_directory(store.root.get(), name));
                return for_each_entry(directory.get(),
                                      [&](const char* /*name*/, unsigned char /*type*/) {
                                          free = false;
                                          return PosixResult<void>();
                                      });
            }
            // The latter is what a new file system has in it.
            free = free && (entry == ".STORE.tmp" || entry == "lost+found");
            return {};
        });
    if (!seen) {
        return fail("cannot read {}: {}", store.path, error_text(seen.error().code));
    }
    return free;
}

/// Makes a store in a directory that is free. STORE comes last: without it there is no store.
Result<void> make_store(const StoreDirs& store, const std::vector<std::string>& lower) {
    for (const char* name : kDirectories) {
        if (::mkdirat(store.root.get(), name, S_IRWXU) != 0 && errno != EEXIST) {
            return fail_errno("cannot make {}/{}", store.path, name);
        }
    }
    StoreRecord record;
    IVMM_ASSIGN(record.uuid, make_uuid());
    auto style = usable_mark_style(store.root.get());
    if (!style) {
        return annotate(std::move(style).error(), store.path);
    }
    record.style = *style;
    record.lower = lower;
    const auto text = encode_store_record(record);
    IVMM_ASSIGN(const auto again, decode_store_record(text));
    if (again != record) {
        return fail("the path of a lower branch is not UTF-8, as the STORE file needs it: {}",
                    fmt::join(lower, ", "));
    }
    if (const auto written = replace_small_file(store.root.get(), "STORE", text); !written) {
        return store_error(store, "STORE", written.error());
    }
    return {};
}

Result<void> open_directories(StoreDirs& store) {
    UniqueFd* const fds[] = {&store.layers, &store.views, &store.locks};
    for (size_t i = 0; i < kDirectories.size(); ++i) {
        auto opened = open_directory(store.root.get(), kDirectories[i]);
        if (!opened) {
            return store_error(store, kDirectories[i], opened.error());
        }
        *fds[i] = *std::move(opened);
    }
    return {};
}

std::string list(const std::vector<std::string>& paths) {
    return paths.empty() ? "none" : fmt::format("{}", fmt::join(paths, ", "));
}

/// Checks the store's record against what the caller and the host give.
Result<std::vector<std::shared_ptr<Layer>>> open_lower(const StoreDirs& store,
                                                       const StoreRecord& record,
                                                       const std::vector<std::string>& wanted) {
    if (!wanted.empty() && wanted != record.lower) {
        return fail_as(ErrorKind::kUsage, "{} is over other lower branches: {}; given were: {}",
                       store.path, list(record.lower), list(wanted));
    }
    std::vector<std::shared_ptr<Layer>> layers;
    for (const auto& path : record.lower) {
        auto layer = Layer::open_branch(path, static_cast<uint32_t>(layers.size() + 1));
        if (!layer) {
            return annotate(std::move(layer).error(), store.path);
        }
        layers.push_back(*std::move(layer));
    }
    return layers;
}

}  // namespace

Result<OpenedStore> open_store(const std::string& directory, const std::vector<std::string>& lower,
                               bool create) {
    IVMM_ASSIGN(const auto wanted, real_branches(lower));
    if (create && ::mkdir(directory.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
        return fail_errno("cannot make the store {}", directory);
    }
    OpenedStore opened;
    auto& store = opened.dirs;
    IVMM_ASSIGN(store.path, real_path(directory));
    store.root.reset(::open(store.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!store.root) {
        return fail_errno("cannot open the store {}", store.path);
    }
    // Alone at first, if nobody else has it open: then what is unused is garbage.
    const bool alone = ::flock(store.root.get(), LOCK_EX | LOCK_NB) == 0;
    if (!alone) {
        IVMM_TRY(lock_directory(store, LOCK_SH));
    }
    auto record = read_store_record(store);
    if (!record && record.error().code == ENOENT) {
        if (!create) {
            return fail("{} is not an ivmm store", store.path);
        }
        IVMM_ASSIGN(const bool free, is_free(store));
        if (!free || !alone) {
            return fail(
                "{} is neither empty nor an ivmm store; a directory with files can be a lower "
                "branch",
                store.path);
        }
        IVMM_TRY(make_store(store, wanted));
        record = read_store_record(store);
    }
    IVMM_ASSIGN(opened.record, std::move(record));
    IVMM_TRY(open_directories(store));
    if (alone) {
        if (const auto collected = collect_garbage(store, opened.record.uuid); !collected) {
            log::warning("nothing is deleted from {} for now: {}", store.path,
                         collected.error().message);
        }
        // Another process may come in between, and collect: nothing of ours is there yet.
        IVMM_TRY(lock_directory(store, LOCK_SH));
    }
    if (opened.record.style == MarkStyle::kTrusted) {
        IVMM_ASSIGN(const auto style, usable_mark_style(store.root.get()));
        if (style != MarkStyle::kTrusted) {
            return fail_as(ErrorKind::kHost,
                           "{} has marks that only root (CAP_SYS_ADMIN) can see; run this as root",
                           store.path);
        }
    }
    IVMM_ASSIGN(opened.lower, open_lower(store, opened.record, wanted));
    return opened;
}

}  // namespace ivmm::storage
