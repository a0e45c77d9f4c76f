#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/tools/diff.h"

struct struct_ext2_filsys;

namespace ivmm::evidence {

/// What an inode says. Times in seconds since 1970 (UTC).
struct ExtFile {
    uint32_t inode = 0;
    uint32_t generation = 0;
    uint16_t mode = 0;  ///< type and permissions
    uint32_t uid = 0;
    uint32_t gid = 0;
    uint32_t links = 0;
    uint64_t bytes = 0;
    int64_t modified = 0;
    int64_t changed = 0;  ///< the inode itself
    int64_t created = 0;  ///< 0: the file system does not tell

    bool is_same_inode(const ExtFile& other) const {
        return inode == other.inode && generation == other.generation;
    }
    bool operator==(const ExtFile&) const = default;
};

/// Reads an ext2, ext3 or ext4 file system that anybody may have made (libext2fs). One thread.
class ExtTree {
 public:
    /// `file`: an image of it; stays the caller's and must stay open. Errors: it is none.
    static Result<ExtTree> open(int file);
    ExtTree(ExtTree&& other) noexcept;
    ExtTree& operator=(ExtTree&&) = delete;
    ~ExtTree();

    uint64_t bytes() const;

    /// All files by their absolute paths, directories too, until `visit` gives an error. What is
    /// damaged is left out. Errors: there are more than can be.
    Result<void> walk(
        const std::function<Result<void>(const std::string& path, const ExtFile&)>& visit) const;

    /// Whether one of the blocks in which the file's content is lies in a range of the image;
    /// the ranges are in order.
    bool is_in(const ExtFile& file, const std::vector<storage::ByteRange>& ranges) const;
    /// The SHA-256 of a regular file's content; nothing if it cannot be read, or if there is no end
    /// to it: of all calls together, no more is read than four times the image.
    std::optional<std::string> sha256(const ExtFile& file);
    /// Where a symbolic link leads; nothing: nobody knows.
    std::optional<std::string> link_target(const ExtFile& file) const;

 private:
    struct Image;
    ExtTree(std::unique_ptr<Image> image, struct_ext2_filsys* file_system);

    std::unique_ptr<Image> image_;
    struct_ext2_filsys* file_system_;
    uint64_t budget_;  // bytes that may yet be read for checksums
};

}  // namespace ivmm::evidence
