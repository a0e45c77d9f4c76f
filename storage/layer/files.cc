#include "storage/layer/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <fts.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <set>
#include <utility>

namespace ivmm::storage {

namespace {

PosixResult<UniqueFd> open_at(int dir, const char* path, int flags, mode_t mode = 0) {
    int fd = -1;
    do {
        fd = ::openat(dir, path, flags | O_CLOEXEC | O_NOFOLLOW, mode);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return last_posix_error();
    }
    return UniqueFd(fd);
}

PosixResult<void> write_all(int fd, std::string_view text) {
    while (!text.empty()) {
        const ssize_t n = ::write(fd, text.data(), text.size());
        if (n < 0 && errno != EINTR) {
            return last_posix_error();
        }
        text.remove_prefix(n < 0 ? 0 : static_cast<size_t>(n));
    }
    return {};
}

bool is_dot(const char* name) {
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/// Deletes a directory that is directly in `trash`, after moving the directories in it there. So
/// depth costs neither descriptors nor stack.
PosixResult<void> remove_flattening(int trash, const char* name, uint64_t& counter) {
    // Whoever may delete may also make it deletable: users of a view choose these modes.
    std::ignore = ::fchmodat(trash, name, S_IRWXU, 0);
    IVMM_ASSIGN(const UniqueFd directory, open_directory(trash, name));
    IVMM_TRY(for_each_entry(
        directory.get(), [&](const char* entry, unsigned char type) -> PosixResult<void> {
            if (type != DT_DIR) {
                if (::unlinkat(directory.get(), entry, 0) != 0) {
                    return last_posix_error();
                }
                return {};
            }
            std::ignore = ::fchmodat(directory.get(), entry, S_IRWXU, 0);
            while (::renameat2(directory.get(), entry, trash,
                               fmt::format(".trash-{}", counter).c_str(), RENAME_NOREPLACE) != 0) {
                if (errno != EEXIST) {
                    return last_posix_error();
                }
                ++counter;
            }
            ++counter;
            return {};
        }));
    if (::unlinkat(trash, name, AT_REMOVEDIR) != 0) {
        return last_posix_error();
    }
    return {};
}

}  // namespace

PosixResult<UniqueFd> open_directory(int dir, const char* path) {
    return open_at(dir, path, O_RDONLY | O_DIRECTORY);
}

PosixResult<void> for_each_entry(
    int dir, const std::function<PosixResult<void>(const char* name, unsigned char type)>& visit) {
    IVMM_ASSIGN(auto own, open_directory(dir, "."));
    struct Close {
        void operator()(DIR* stream) const { ::closedir(stream); }
    };
    const std::unique_ptr<DIR, Close> stream(::fdopendir(own.get()));
    if (stream == nullptr) {
        return last_posix_error();
    }
    own.release();  // the stream's
    while (true) {
        errno = 0;
        const dirent* entry = ::readdir(stream.get());  // NOLINT(concurrency-mt-unsafe): our stream
        if (entry == nullptr) {
            if (errno != 0) {
                return last_posix_error();
            }
            return {};
        }
        if (is_dot(entry->d_name)) {
            continue;
        }
        unsigned char type = entry->d_type;
        if (type == DT_UNKNOWN) {
            struct stat attributes {};
            if (::fstatat(dir, entry->d_name, &attributes, AT_SYMLINK_NOFOLLOW) != 0) {
                return last_posix_error();
            }
            type = static_cast<unsigned char>(IFTODT(attributes.st_mode));
        }
        IVMM_TRY(visit(entry->d_name, type));
    }
}

PosixResult<std::string> read_small_file(int dir, const char* name, size_t limit) {
    IVMM_ASSIGN(const auto file, open_at(dir, name, O_RDONLY | O_NONBLOCK));
    std::string text;
    std::array<char, 4096> piece{};
    while (true) {
        const ssize_t n = ::read(file.get(), piece.data(), piece.size());
        if (n < 0 && errno != EINTR) {
            return last_posix_error();
        }
        if (n == 0) {
            return text;
        }
        text.append(piece.data(), n < 0 ? 0 : static_cast<size_t>(n));
        if (text.size() > limit) {
            return posix_error(EFBIG);
        }
    }
}

PosixResult<void> write_small_file(int dir, const char* name, std::string_view text) {
    IVMM_ASSIGN(const auto file,
                open_at(dir, name, O_WRONLY | O_CREAT | O_TRUNC, S_IRUSR | S_IWUSR));
    IVMM_TRY(write_all(file.get(), text));
    return sync_fd(file.get());
}

PosixResult<void> replace_small_file(int dir, const std::string& name, std::string_view text) {
    const auto temporary = fmt::format(".{}.tmp", name);
    auto written = write_small_file(dir, temporary.c_str(), text);
    if (written && ::renameat(dir, temporary.c_str(), dir, name.c_str()) != 0) {
        written = last_posix_error();
    }
    if (!written) {
        std::ignore = ::unlinkat(dir, temporary.c_str(), 0);
        return written;
    }
    return sync_fd(dir);
}

PosixResult<void> sync_fd(int fd) {
    // Not repeated on an error: the second call would say that all is well.
    if (::fsync(fd) != 0) {
        return last_posix_error();
    }
    return {};
}

uint64_t disk_usage(const std::string& directory) {
    constexpr uint64_t kStatBlock = 512;
    std::string path = directory;
    const std::array<char*, 2> roots{path.data(), nullptr};
    const std::unique_ptr<FTS, int (*)(FTS*)> walk(
        ::fts_open(roots.data(), FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, nullptr), ::fts_close);
    std::set<std::pair<dev_t, ino_t>> linked;
    uint64_t blocks = 0;
    while (const FTSENT* const entry = walk ? ::fts_read(walk.get()) : nullptr) {
        const struct stat* const info = entry->fts_statp;
        if (entry->fts_info == FTS_DP || entry->fts_info == FTS_NS || entry->fts_info == FTS_ERR) {
            continue;
        }
        const bool again = !S_ISDIR(info->st_mode) && info->st_nlink > 1 &&
                           !linked.emplace(info->st_dev, info->st_ino).second;
        blocks += again ? 0 : static_cast<uint64_t>(info->st_blocks);
    }
    return blocks * kStatBlock;
}

PosixResult<void> empty_directory(int dir) {
    uint64_t counter = 0;
    bool moved = true;
    while (moved) {
        moved = false;
        IVMM_TRY(
            for_each_entry(dir, [&](const char* name, unsigned char type) -> PosixResult<void> {
                moved = true;
                if (type == DT_DIR) {
                    return remove_flattening(dir, name, counter);
                }
                if (::unlinkat(dir, name, 0) != 0) {
                    return last_posix_error();
                }
                return {};
            }));
    }
    return {};
}

PosixResult<void> remove_tree(int dir, const char* name) {
    if (::unlinkat(dir, name, 0) == 0 || errno == ENOENT) {
        return {};
    }
    if (errno != EISDIR) {
        return last_posix_error();
    }
    std::ignore = ::fchmodat(dir, name, S_IRWXU, 0);
    {
        IVMM_ASSIGN(const auto directory, open_directory(dir, name));
        IVMM_TRY(empty_directory(directory.get()));
    }
    if (::unlinkat(dir, name, AT_REMOVEDIR) != 0) {
        return last_posix_error();
    }
    return {};
}

}  // namespace ivmm::storage
