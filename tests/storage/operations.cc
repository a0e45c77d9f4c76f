#include "tests/storage/operations.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <set>

#include "base/result.h"
#include "tests/storage/tree.h"

namespace ivmm::test {
namespace {

constexpr size_t kMostRead = 128U * 1024U;

/// Makes this thread act as another user, without a group's rights.
class ActAs {
 public:
    explicit ActAs(uid_t user) : active_(user != 0) {
        if (active_) {  // the raw calls: glibc's change all threads
            groups_.resize(64);
            groups_.resize(static_cast<size_t>(std::max(::getgroups(64, groups_.data()), 0)));
            ::syscall(SYS_setgroups, 0, nullptr);
            ::syscall(SYS_setresgid, -1, user, -1);
            ::syscall(SYS_setresuid, -1, user, -1);
        }
    }
    ~ActAs() {
        if (active_) {
            const int error = errno;
            ::syscall(SYS_setresuid, -1, 0, -1);
            ::syscall(SYS_setresgid, -1, 0, -1);
            ::syscall(SYS_setgroups, groups_.size(), groups_.data());
            errno = error;
        }
    }
    ActAs(const ActAs&) = delete;
    ActAs& operator=(const ActAs&) = delete;

 private:
    bool active_;
    std::vector<gid_t> groups_;
};

Outcome outcome(int64_t value, std::string data = {}) {
    return value < 0 ? Outcome{-1, errno, {}} : Outcome{value, 0, std::move(data)};
}

Outcome describe_status(int result, const struct stat& status) {
    if (result != 0) {
        return outcome(result);
    }
    const bool directory = S_ISDIR(status.st_mode);
    return outcome(0, fmt::format("mode {:o} owner {}:{} size {} links {} device {}",
                                  status.st_mode, status.st_uid, status.st_gid,
                                  directory ? 0 : status.st_size, directory ? 0 : status.st_nlink,
                                  S_ISREG(status.st_mode) || directory ? 0 : status.st_rdev));
}

std::array<timespec, 2> times_of(const Operation& operation) {
    timespec access{};
    access.tv_nsec = UTIME_OMIT;
    timespec change{};
    change.tv_sec = static_cast<time_t>(operation.offset);
    change.tv_nsec = static_cast<long>(operation.length % 1'000'000'000);
    return {access, change};
}

Outcome read_at(int fd, uint64_t offset, uint64_t length) {
    std::string data(std::min<uint64_t>(length, kMostRead), '\0');
    const ssize_t size = ::pread(fd, data.data(), data.size(), static_cast<off_t>(offset));
    data.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
    return outcome(size, std::move(data));
}

/// A directory stream that is read in small pieces.
class SmallReader {
 public:
    explicit SmallReader(const std::string& path)
        : fd_(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {}
    bool good() const { return static_cast<bool>(fd_); }
    struct Name {
        std::string name;
        int64_t next;  ///< position of what follows
    };
    /// Some more entries, none at the end.
    std::vector<Name> more() {
        alignas(8) std::array<char, 600> buffer;  // NOLINT: getdents fills it
        const long size = ::syscall(SYS_getdents64, fd_.get(), buffer.data(), buffer.size());
        std::vector<Name> names;
        for (long at = 0; at < size;) {
            // The kernel's struct linux_dirent64: inode, position of the next, size, type, name.
            int64_t next = 0;
            uint16_t length = 0;
            std::copy_n(buffer.data() + at + 8, 8, reinterpret_cast<char*>(&next));
            std::copy_n(buffer.data() + at + 16, 2, reinterpret_cast<char*>(&length));
            names.push_back({buffer.data() + at + 19, next});
            at += length;
        }
        return names;
    }
    void seek(int64_t position) { ::lseek(fd_.get(), position, SEEK_SET); }

 private:
    UniqueFd fd_;
};

/// Reads a directory in pieces while entries come and go. What was there all the time must be
/// listed once, what was never there must not, going back to a position gives what was there.
std::string change_while_reading(const std::string& path) {
    SmallReader reader(path);
    if (!reader.good()) {
        return error_text(errno);
    }
    std::set<std::string> before;
    std::vector<SmallReader::Name> all;
    for (auto names = reader.more(); !names.empty(); names = reader.more()) {
        for (const auto& entry : names) {
            before.insert(entry.name);
            all.push_back(entry);
        }
    }
    if (before.size() != all.size()) {
        return "a name is listed twice";
    }
    for (size_t i = 0; i + 1 < all.size(); i += 1 + all.size() / 7) {
        reader.seek(all[i].next);
        const auto names = reader.more();
        if (names.empty() || names[0].name != all[i + 1].name) {
            return "after seekdir to what follows " + printable(all[i].name) + " comes " +
                   (names.empty() ? "nothing" : printable(names[0].name)) + " and not " +
                   printable(all[i + 1].name);
        }
    }
    reader.seek(0);
    std::map<std::string, int> seen;
    std::set<std::string> ours;
    int round = 0;
    const auto make = [&](const std::string& name) {
        UniqueFd(::open((path + "/" + name).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644)).reset();
        ours.insert(name);
    };
    make("ivmm-t-first");
    for (auto names = reader.more(); !names.empty(); names = reader.more()) {
        for (const auto& entry : names) {
            ++seen[entry.name];
        }
        if (round < 20) {
            make("ivmm-t-" + std::to_string(round));
            if (round % 2 == 0) {
                ::unlink((path + "/ivmm-t-" + std::to_string(round / 2)).c_str());
            }
        }
        ++round;
    }
    std::string wrong;
    for (const auto& name : before) {
        if (seen[name] != 1) {
            wrong = printable(name) + " was listed " + std::to_string(seen[name]) + " times";
        }
    }
    for (const auto& [name, times] : seen) {
        if (!before.contains(name) && (!ours.contains(name) || times > 1)) {
            wrong = printable(name) + " was listed " + std::to_string(times) + " times";
        }
    }
    for (const auto& name : ours) {
        ::unlink((path + "/" + name).c_str());
    }
    reader.seek(0);
    std::set<std::string> after;
    for (auto names = reader.more(); !names.empty(); names = reader.more()) {
        for (const auto& entry : names) {
            after.insert(entry.name);
        }
    }
    return !wrong.empty() ? wrong : after != before ? "rewinddir does not show the changes" : "";
}

Outcome list_directory(const std::string& path) {
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
    if (!directory) {
        return outcome(-1);
    }
    std::set<std::string> names;
    errno = 0;
    // NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is ours alone
    while (const dirent* entry = ::readdir(directory.get())) {
        names.insert(std::string(entry->d_name) + "|" + std::to_string(entry->d_type));
    }
    if (errno != 0) {
        return outcome(-1);
    }
    std::string data;
    for (const auto& name : names) {
        data += printable(name) + " ";
    }
    return outcome(0, data);
}

Outcome list_xattrs(const std::string& path) {
    std::string names(kMostRead / 2, '\0');
    const ssize_t size = ::llistxattr(path.c_str(), names.data(), names.size());
    if (size < 0) {
        return outcome(size);
    }
    std::set<std::string> sorted;
    for (const char* name = names.data(); name < names.data() + size;
         name += std::string_view(name).size() + 1) {
        sorted.insert(name);
    }
    std::string data;
    for (const auto& name : sorted) {
        data += name + " ";
    }
    return outcome(size, data);
}

Outcome get_xattr(const std::string& path, const std::string& name, uint64_t size) {
    std::string value(size, '\0');
    const ssize_t result = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    value.resize(std::min(size, static_cast<size_t>(std::max<ssize_t>(result, 0))));
    return outcome(result, value);
}

bool is_hard_link(const std::string& path) {
    return path.substr(path.rfind('/') + 1).starts_with(kHardLinkPrefix);
}

const std::map<Do, const char*> kNames = {
    {Do::kOpen, "open"},
    {Do::kReadFile, "read file"},
    {Do::kTruncate, "truncate"},
    {Do::kMkdir, "mkdir"},
    {Do::kRmdir, "rmdir"},
    {Do::kUnlink, "unlink"},
    {Do::kRename, "rename"},
    {Do::kLink, "link"},
    {Do::kSymlink, "symlink"},
    {Do::kMknod, "mknod"},
    {Do::kChmod, "chmod"},
    {Do::kChown, "chown"},
    {Do::kUtimens, "utimens"},
    {Do::kSetXattr, "setxattr"},
    {Do::kGetXattr, "getxattr"},
    {Do::kListXattr, "listxattr"},
    {Do::kRemoveXattr, "removexattr"},
    {Do::kReadlink, "readlink"},
    {Do::kStat, "stat"},
    {Do::kAccess, "access"},
    {Do::kReadDirectory, "readdir"},
    {Do::kChangeWhileReading, "change while reading"},
    {Do::kStatfs, "statfs"},
    {Do::kRead, "read"},
    {Do::kWrite, "write"},
    {Do::kFtruncate, "ftruncate"},
    {Do::kFallocate, "fallocate"},
    {Do::kFstat, "fstat"},
    {Do::kFchmod, "fchmod"},
    {Do::kFchown, "fchown"},
    {Do::kFutimens, "futimens"},
    {Do::kFsetXattr, "fsetxattr"},
    {Do::kFsync, "fsync"},
    {Do::kSeekEnd, "seek end"},
    {Do::kClose, "close"},
};

}  // namespace

std::string describe(const Operation& operation) {
    std::string text = kNames.at(operation.what);
    if (operation.what >= Do::kRead || operation.what == Do::kOpen) {
        text += fmt::format(" slot {}", operation.slot);
    }
    if (operation.what < Do::kRead) {
        text += " '" + printable(operation.path) + "'";
    }
    if (!operation.other.empty()) {
        text += " '" + printable(operation.other) + "'";
    }
    return text + fmt::format(" flags {:#o} mode {:o} offset {} length {} as {}", operation.flags,
                              operation.mode, operation.offset, operation.length, operation.as);
}

std::string describe(const Outcome& outcome) {
    return outcome.error != 0
               ? error_text(outcome.error)
               : fmt::format("{} [{}]", outcome.value, printable(outcome.data.substr(0, 2000)));
}

void Side::close_all() {
    for (auto& slot : slots_) {
        slot.reset();
    }
}

Outcome Side::run(const Operation& operation) {
    const std::string path = root_ + operation.path;
    if (operation.what == Do::kOpen && (operation.flags & (O_ACCMODE | O_TRUNC)) == O_RDONLY &&
        (operation.flags & O_DIRECTORY) == 0) {
        // A file that is opened for reading only is copied up first: overlayfs would go on showing
        // the lower file to whoever opened it before.
        UniqueFd(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC)).reset();
    }
    struct stat status {};
    if ((operation.what == Do::kOpen || operation.what == Do::kReadFile) &&
        ::stat(path.c_str(), &status) == 0 &&
        (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode))) {
        return {};  // our mount may be nodev, and both sides would share the device
    }
    const ActAs user(operation.as);
    if (operation.what >= Do::kRead) {
        return run_slot(operation, slots_.at(static_cast<size_t>(operation.slot)).get());
    }
    return run_path(operation, path);
}

Outcome Side::run_path(const Operation& operation, const std::string& path) {
    const char* const name = path.c_str();
    switch (operation.what) {
        case Do::kOpen: {
            UniqueFd fd(::open(name, operation.flags | O_NONBLOCK | O_CLOEXEC, operation.mode));
            const Outcome result = outcome(fd.get() < 0 ? -1 : 0);
            slots_.at(static_cast<size_t>(operation.slot)) = std::move(fd);
            return result;
        }
        case Do::kReadFile: {
            const UniqueFd fd(::open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
            return fd ? read_at(fd.get(), operation.offset, operation.length) : outcome(-1);
        }
        case Do::kTruncate:
            return outcome(::truncate(name, static_cast<off_t>(operation.offset)));
        case Do::kMkdir:
            return outcome(::mkdir(name, operation.mode));
        case Do::kRmdir:
            return outcome(::rmdir(name));
        case Do::kUnlink:
            return outcome(::unlink(name));
        case Do::kRename:
            return outcome(::renameat2(AT_FDCWD, name, AT_FDCWD, (root_ + operation.other).c_str(),
                                       static_cast<unsigned>(operation.flags)));
        case Do::kLink:
            return outcome(::link(name, (root_ + operation.other).c_str()));
        case Do::kSymlink:
            return outcome(::symlink(operation.other.c_str(), name));
        case Do::kMknod:
            return outcome(::mknod(name, operation.mode, operation.offset));
        case Do::kChmod:
            return outcome(::chmod(name, operation.mode));
        case Do::kChown:
            return outcome(::lchown(name, static_cast<uid_t>(operation.offset),
                                    static_cast<gid_t>(operation.length)));
        case Do::kUtimens:
            return outcome(
                ::utimensat(AT_FDCWD, name, times_of(operation).data(), AT_SYMLINK_NOFOLLOW));
        case Do::kSetXattr: {
            const std::string value(operation.length, operation.fill);
            return outcome(::lsetxattr(name, operation.other.c_str(), value.data(), value.size(),
                                       operation.flags));
        }
        case Do::kGetXattr:
            return get_xattr(path, operation.other, operation.length);
        case Do::kListXattr:
            return list_xattrs(path);
        case Do::kRemoveXattr:
            return outcome(::lremovexattr(name, operation.other.c_str()));
        case Do::kReadlink: {
            std::string target(operation.length + 1, '\0');
            const ssize_t size = ::readlink(name, target.data(), target.size());
            target.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
            return outcome(size, target);
        }
        case Do::kStat: {
            struct stat status {};
            const int result = ::fstatat(AT_FDCWD, name, &status, operation.flags);
            return describe_status(result, status);
        }
        case Do::kAccess:
            return outcome(::faccessat(AT_FDCWD, name, operation.flags, AT_EACCESS));
        case Do::kReadDirectory:
            return list_directory(path);
        case Do::kChangeWhileReading:
            return outcome(0, change_while_reading(path));
        case Do::kStatfs: {
            struct statvfs status {};
            const int result = ::statvfs(name, &status);
            const bool sane = status.f_blocks > 0 && status.f_bfree <= status.f_blocks &&
                              status.f_frsize > 0 && status.f_files > 0;
            return outcome(result, fmt::format("sane {} names {}", sane, status.f_namemax));
        }
        default:
            return {};
    }
}

Outcome Side::run_slot(const Operation& operation, int fd) {
    const auto offset = static_cast<off_t>(operation.offset);
    switch (operation.what) {
        case Do::kRead:
            return read_at(fd, operation.offset, operation.length);
        case Do::kWrite: {
            std::string data(operation.length, operation.fill);
            for (size_t i = 0; i < data.size(); i += 512) {
                data[i] = static_cast<char>('0' + (i / 512) % 10);
            }
            return outcome(::pwrite(fd, data.data(), data.size(), offset));
        }
        case Do::kFtruncate:
            return outcome(::ftruncate(fd, offset));
        case Do::kFallocate: {
            const Outcome result = outcome(
                ::fallocate(fd, operation.flags, offset, static_cast<off_t>(operation.length)));
            if (result.error == 0 && (operation.flags & FALLOC_FL_KEEP_SIZE) != 0) {
                ::futimens(fd, nullptr);  // beyond the end, only some file systems do
            }
            return result;
        }
        case Do::kFstat: {
            struct stat status {};
            const int result = ::fstat(fd, &status);
            return describe_status(result, status);
        }
        case Do::kFchmod:
            return outcome(::fchmod(fd, operation.mode));
        case Do::kFchown:
            return outcome(::fchown(fd, static_cast<uid_t>(operation.offset),
                                    static_cast<gid_t>(operation.length)));
        case Do::kFutimens:
            return outcome(::futimens(fd, times_of(operation).data()));
        case Do::kFsetXattr: {
            const std::string value(operation.length, operation.fill);
            return outcome(::fsetxattr(fd, operation.other.c_str(), value.data(), value.size(),
                                       operation.flags));
        }
        case Do::kFsync:
            return outcome(::fsync(fd));
        case Do::kSeekEnd: {
            struct stat status {};
            const int result = ::fstat(fd, &status);
            return outcome(result != 0 || S_ISDIR(status.st_mode) ? result
                                                                  : ::lseek(fd, 0, SEEK_END));
        }
        case Do::kClose:
            slots_.at(static_cast<size_t>(operation.slot)).reset();
            return {};
        default:
            return {};
    }
}

std::string OperationMaker::some_path() {
    return random_.one_in(12) ? new_path() : random_.pick(paths_);
}

/// A name in a known directory, or what would be a name if a file were a directory.
std::string OperationMaker::new_path() {
    static const std::vector<std::string> kNew = {"a",
                                                  "b",
                                                  "c",
                                                  "n1",
                                                  "n2",
                                                  "n3",
                                                  "n4",
                                                  "n5",
                                                  "new\nline",
                                                  "dir1",
                                                  "dir2",
                                                  ".wh.n",
                                                  "ü",
                                                  ".wh.a",
                                                  "n 6",
                                                  std::string(255, 'L'),
                                                  std::string(256, 'L')};
    std::string parent = random_.pick(paths_);
    if (!random_.one_in(8)) {
        parent = parent.substr(0, parent.rfind('/') + 1);
        return (parent.empty() ? "/" : parent) + random_.pick(kNew);
    }
    return parent + "/" + random_.pick(kNew);
}

Operation OperationMaker::next() {
    while (true) {
        Operation operation = propose();
        if ((operation.mode & S_ISGID) != 0) {
            operation.mode |= S_IXGRP;  // without it, what a write does to it depends on the kernel
        }
        // Reading is all that is done to hard links of a lower branch; see kHardLinkPrefix.
        const bool only_reads = operation.what == Do::kReadFile ||
                                operation.what == Do::kGetXattr ||
                                operation.what == Do::kListXattr || operation.what == Do::kStat ||
                                operation.what == Do::kAccess || operation.what >= Do::kRead;
        if (only_reads || !(is_hard_link(operation.path) || is_hard_link(operation.other))) {
            if ((operation.what == Do::kMkdir || operation.what == Do::kOpen ||
                 operation.what == Do::kSymlink || operation.what == Do::kMknod) &&
                operation.path.size() < 1500) {
                paths_.push_back(operation.path);
            } else if (operation.what == Do::kRename || operation.what == Do::kLink) {
                paths_.push_back(operation.other);
            }
            return operation;
        }
    }
}

Operation OperationMaker::propose() {
    static const std::vector<Do> kOften = {Do::kOpen, Do::kWrite, Do::kRead, Do::kRename};
    static const std::vector<std::string> kXattrs = {"user.lower", "user.a", "user.b", "trusted.t",
                                                     "user."};
    static const std::vector<uint64_t> kSizes = {
        0, 1, 511, 4095, 4096, 5000, 65'536, 65'537, 100'000, 131'072, 262'144, 300'001};
    Operation operation;
    operation.what = random_.one_in(3)
                         ? random_.pick(kOften)
                         : static_cast<Do>(random_.below(static_cast<uint64_t>(Do::kClose) + 1));
    operation.path = some_path();
    operation.slot = static_cast<int>(random_.below(Side::kSlots));
    operation.mode = static_cast<mode_t>(random_.one_in(3) ? random_.below(010000) : 0644);
    operation.as = random_.one_in(8) ? 1000 : 0;
    operation.offset = random_.one_in(2) ? random_.pick(kSizes) : random_.below(1'500'000);
    operation.length = random_.one_in(2) ? random_.pick(kSizes) : random_.below(20'000);
    operation.fill = static_cast<char>('a' + random_.below(26));
    switch (operation.what) {
        case Do::kOpen: {
            static const std::vector<int> kAccess = {O_RDWR, O_RDWR, O_RDONLY, O_WRONLY};
            operation.flags = random_.pick(kAccess);
            if (random_.one_in(3)) {
                operation.flags |= O_CREAT;
                operation.path = random_.one_in(2) ? new_path() : operation.path;
            }
            for (const auto& [flag, chance] : {std::pair{O_EXCL, 5},
                                               {O_TRUNC, 6},
                                               {O_APPEND, 5},
                                               {O_DIRECTORY, 15},
                                               {O_NOFOLLOW, 5},
                                               {O_SYNC, 40}}) {
                if (random_.one_in(static_cast<uint64_t>(chance))) {
                    operation.flags |= flag;
                }
            }
            if ((operation.flags & O_CREAT) != 0) {
                operation.flags &= ~O_DIRECTORY;  // what both together mean depends on the kernel
            }
            break;
        }
        case Do::kMkdir:
            operation.mode &= 01777;
            [[fallthrough]];
        case Do::kSymlink:
            operation.path = random_.one_in(4) ? operation.path : new_path();
            operation.other = "";
            if (operation.what == Do::kSymlink) {
                const std::string& target = random_.pick(paths_);
                operation.other = random_.one_in(4) ? "/nonexistent/absolute"
                                                    : target.substr(target.rfind('/') + 1);
            }
            break;
        case Do::kMknod: {
            static const std::vector<mode_t> kTypes = {S_IFIFO, S_IFSOCK, S_IFREG, S_IFCHR};
            operation.path = new_path();
            operation.mode = (operation.mode & 0777) | random_.pick(kTypes);
            operation.offset = 0;  // a device 0/0 is a whiteout, and refused
            if (S_ISCHR(operation.mode) && !random_.one_in(4)) {
                operation.path = operation.path.substr(0, operation.path.rfind('/')) + "/dev-new";
                operation.offset = makedev(1, 3);
            }
            break;
        }
        case Do::kRename:
            static const std::vector<int> kRenameFlags = {
                0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
            operation.flags = random_.pick(kRenameFlags);
            [[fallthrough]];
        case Do::kLink:
            operation.other = random_.one_in(2) ? some_path() : new_path();
            break;
        case Do::kChown:
        case Do::kFchown:
            operation.offset = random_.one_in(2) ? 1000 : random_.below(3);
            operation.length = random_.one_in(2) ? 1000 : random_.below(3);
            break;
        case Do::kChmod:
        case Do::kFchmod:
            operation.mode = static_cast<mode_t>(random_.below(010000));
            break;
        case Do::kUtimens:
        case Do::kFutimens:
            operation.offset = random_.below(kOld);
            break;
        case Do::kSetXattr:
        case Do::kFsetXattr: {
            static const std::vector<int> kXattrFlags = {0, 0, XATTR_CREATE, XATTR_REPLACE};
            operation.flags = random_.pick(kXattrFlags);
            operation.length = random_.below(200);
            operation.other = random_.pick(kXattrs);
            break;
        }
        case Do::kGetXattr:
            operation.length = random_.one_in(3) ? random_.below(50) : 300;
            [[fallthrough]];
        case Do::kRemoveXattr:
            operation.other = random_.pick(kXattrs);
            break;
        case Do::kStat:
            operation.flags = random_.one_in(2) ? AT_SYMLINK_NOFOLLOW : 0;
            break;
        case Do::kAccess:
            operation.flags = static_cast<int>(random_.below(8));
            break;
        case Do::kReadlink:
            operation.length = random_.below(300);
            break;
        case Do::kFallocate: {
            static const std::vector<int> kModes = {0,
                                                    FALLOC_FL_KEEP_SIZE,
                                                    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                                    FALLOC_FL_ZERO_RANGE,
                                                    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                                    FALLOC_FL_PUNCH_HOLE};
            operation.flags = random_.pick(kModes);
            break;
        }
        case Do::kFsync:
            if (!random_.one_in(20)) {  // the disk is slow
                operation.what = Do::kFstat;
            }
            break;
        default:
            break;
    }
    if (operation.what == Do::kChangeWhileReading) {
        operation.as = 0;
        if (random_.one_in(2)) {
            operation.path = "/many";
        }
    }
    return operation;
}

}  // namespace ivmm::test
