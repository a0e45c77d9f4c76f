#pragma once

#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace ivmm {

/// A folder that gets its name when everything is in it and on the disk; until then it is called
/// `.NAME.ivmm-XXXXXX`, and is removed with this object. One thread.
class SnapshotFolder {
 public:
    /// `path`: absolute. Errors: something of that name is there already; the folder it is to be
    /// in cannot be used.
    static Result<SnapshotFolder> create(const std::string& path);
    SnapshotFolder(SnapshotFolder&& other) noexcept;
    SnapshotFolder& operator=(SnapshotFolder&&) = delete;
    ~SnapshotFolder();

    /// The name it will have; the folder above is without links.
    const std::string& path() const { return path_; }

    /// The snapshot's memory: a new file, open for writing.
    Result<UniqueFd> create_memory() const;
    /// Writes the file `machine` and syncs it.
    Result<void> write_machine(ConstByteSpan content) const;
    /// Gives the folder its name. Waits for the disk.
    Result<void> publish();

 private:
    SnapshotFolder(std::string path, std::string temporary)
        : path_(std::move(path)), temporary_(std::move(temporary)) {}
    Result<UniqueFd> create_file(const char* name) const;

    std::string path_;
    std::string temporary_;  // empty: nothing is to be removed
};

}  // namespace ivmm
