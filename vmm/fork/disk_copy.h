#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace ivmm {

/// The copy of a disk that is a plain file, made in two steps. One thread.
class DiskCopy {
 public:
    enum class Method {
        kReflink,  ///< shares the blocks; takes milliseconds
        kCopy,     ///< reads and writes everything that is no hole
    };

    /// Creates the target, an empty file that only this user may read, and finds out how it can
    /// become a copy. Errors: there is a file of this name already, and it stays as it is; the
    /// source cannot be opened.
    static Result<DiskCopy> create(const std::string& source, const std::string& target);

    /// Makes the target what the source is now. Nobody may write the source meanwhile. Errors: the
    /// target is of no use.
    Result<void> make();

    const std::string& path() const { return target_path_; }
    Method method() const { return method_; }
    /// What make() will copy, as far as is known now: 0 with kReflink.
    uint64_t bytes() const { return bytes_; }
    /// The file system of the copy, and what it has left for this user, in bytes.
    dev_t file_system() const { return file_system_; }
    Result<uint64_t> free_bytes() const;

 private:
    DiskCopy(std::string source, std::string target)
        : source_path_(std::move(source)), target_path_(std::move(target)) {}
    Result<void> open();
    Result<void> examine();

    std::string source_path_;
    std::string target_path_;
    UniqueFd source_;
    UniqueFd target_;
    Method method_ = Method::kCopy;
    uint64_t bytes_ = 0;
    dev_t file_system_ = 0;
};

}  // namespace ivmm
