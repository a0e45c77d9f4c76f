#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "tests/storage/random.h"

/// File system operations as values, so that the same one can be done on two mounts.
namespace ivmm::test {

enum class Do {
    // by path
    kOpen,
    kReadFile,
    kTruncate,
    kMkdir,
    kRmdir,
    kUnlink,
    kRename,
    kLink,
    kSymlink,
    kMknod,
    kChmod,
    kChown,
    kUtimens,
    kSetXattr,
    kGetXattr,
    kListXattr,
    kRemoveXattr,
    kReadlink,
    kStat,
    kAccess,
    kReadDirectory,
    kChangeWhileReading,
    kStatfs,
    // by slot
    kRead,
    kWrite,
    kFtruncate,
    kFallocate,
    kFstat,
    kFchmod,
    kFchown,
    kFutimens,
    kFsetXattr,
    kFsync,
    kSeekEnd,
    kClose,
};

/// One operation and all that it may need.
struct Operation {
    Do what = Do::kStat;
    std::string path;
    std::string other;  ///< second path, symlink target, or xattr name
    int slot = 0;       ///< of an open file
    int flags = 0;      ///< of open, rename, fallocate, setxattr
    mode_t mode = 0;
    uint64_t offset = 0;
    uint64_t length = 0;
    uid_t as = 0;  ///< the effective user
    char fill = 'x';
};
std::string describe(const Operation& operation);

/// What it answered.
struct Outcome {
    int64_t value = 0;
    int error = 0;
    std::string data;
    bool operator==(const Outcome&) const = default;
};
std::string describe(const Outcome& outcome);

/// A mounted tree and the files that are open in it.
class Side {
 public:
    static constexpr int kSlots = 8;
    explicit Side(std::string root) : root_(std::move(root)) {}
    Outcome run(const Operation& operation);
    void close_all();

 private:
    Outcome run_path(const Operation& operation, const std::string& path);
    Outcome run_slot(const Operation& operation, int fd);
    std::string root_;
    std::array<UniqueFd, kSlots> slots_;
};

/// Makes up operations. Knows which names there are, roughly.
class OperationMaker {
 public:
    OperationMaker(Random& random, std::vector<std::string> paths)
        : random_(random), paths_(std::move(paths)) {}
    void set_paths(std::vector<std::string> paths) { paths_ = std::move(paths); }
    Operation next();

 private:
    Operation propose();
    std::string some_path();
    std::string new_path();
    Random& random_;
    std::vector<std::string> paths_;
};

}  // namespace ivmm::test
