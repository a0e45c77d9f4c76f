#include "vmm/evidence/ext_tree.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "vmm/evidence/sha256.h"

extern "C" {
#include <et/com_err.h>
#include <ext2fs/ext2fs.h>
}

namespace ivmm::evidence {
namespace {

constexpr size_t kMostFiles = 4'000'000;
constexpr size_t kMostPath = 4096;
constexpr size_t kPiece = size_t{1} << 20;

}  // namespace

/// The I/O manager of libext2fs over a descriptor: it opens nothing. (The library is given its
/// address in the place of a file's name.)
struct ExtTree::Image {
    struct_io_manager manager{};
    struct_io_channel channel{};
    int file = -1;
    uint64_t bytes = 0;
    std::string name;

    static Image& of(io_channel channel) { return *static_cast<Image*>(channel->private_data); }

    static errcode_t open(const char* name, int /*flags*/, io_channel* channel) {
        const auto address = std::strtoull(name, nullptr, 16);
        auto* const image = reinterpret_cast<Image*>(address);  // NOLINT(performance-no-int-to-ptr)
        image->channel.refcount = 1;
        *channel = &image->channel;
        return 0;
    }
    static errcode_t close(io_channel /*channel*/) { return 0; }
    static errcode_t set_block_size(io_channel channel, int bytes) {
        channel->block_size = bytes;
        return 0;
    }
    /// `count`: blocks, or, if it is negative, bytes.
    static errcode_t read64(io_channel channel, unsigned long long block, int count, void* data) {
        const Image& image = of(channel);
        const auto block_size = static_cast<uint64_t>(channel->block_size);
        const uint64_t length = count < 0 ? static_cast<uint64_t>(-int64_t{count})
                                          : static_cast<uint64_t>(count) * block_size;
        uint64_t offset = 0;
        if (__builtin_mul_overflow(uint64_t{block}, block_size, &offset) || offset > image.bytes ||
            length > image.bytes - offset) {
            return EXT2_ET_SHORT_READ;
        }
        for (uint64_t done = 0; done < length;) {
            const ssize_t n = ::pread(image.file, static_cast<char*>(data) + done, length - done,
                                      static_cast<off_t>(offset + done));
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n <= 0) {
                return EXT2_ET_SHORT_READ;
            }
            done += static_cast<uint64_t>(n);
        }
        return 0;
    }
    static errcode_t read(io_channel channel, unsigned long block, int count, void* data) {
        return read64(channel, block, count, data);
    }
    static errcode_t write64(io_channel, unsigned long long, int, const void*) {
        return EXT2_ET_RO_FILSYS;
    }
    static errcode_t write(io_channel, unsigned long, int, const void*) {
        return EXT2_ET_RO_FILSYS;
    }
    static errcode_t flush(io_channel) { return 0; }
    static errcode_t option(io_channel, const char*, const char*) {
        return EXT2_ET_INVALID_ARGUMENT;
    }

    Image(int file_, uint64_t bytes_) : file(file_), bytes(bytes_) {
        manager.magic = EXT2_ET_MAGIC_IO_MANAGER;
        manager.name = "descriptor";
        manager.open = open;
        manager.close = close;
        manager.set_blksize = set_block_size;
        manager.read_blk = read;
        manager.read_blk64 = read64;
        manager.write_blk = write;
        manager.write_blk64 = write64;
        manager.flush = flush;
        manager.set_option = option;
        name = fmt::format("{:x}", reinterpret_cast<uintptr_t>(this));
        channel.magic = EXT2_ET_MAGIC_IO_CHANNEL;
        channel.manager = &manager;
        channel.name = name.data();
        channel.block_size = 1024;
        channel.private_data = this;
    }
};

namespace {

int64_t time_of(uint32_t low, uint32_t extra) {
    // ext4 has two more bits, so that the first 34 bits end in 2446.
    return static_cast<int32_t>(low) + (int64_t{extra & 3} << 32);
}

ExtFile describe(ext2_ino_t number, const ext2_inode_large& inode, bool has_extra) {
    ExtFile file;
    file.inode = number;
    file.generation = inode.i_generation;
    file.mode = inode.i_mode;
    file.uid = inode.i_uid | static_cast<uint32_t>(inode.osd2.linux2.l_i_uid_high) << 16;
    file.gid = inode.i_gid | static_cast<uint32_t>(inode.osd2.linux2.l_i_gid_high) << 16;
    file.links = inode.i_links_count;
    file.bytes = EXT2_I_SIZE(&inode);
    const auto has = [&](size_t end) {
        return has_extra && size_t{EXT2_GOOD_OLD_INODE_SIZE} + inode.i_extra_isize >= end;
    };
    constexpr size_t kUpToModified = offsetof(ext2_inode_large, i_mtime_extra) + 4;
    constexpr size_t kUpToCreated = offsetof(ext2_inode_large, i_crtime_extra) + 4;
    file.modified = time_of(inode.i_mtime, has(kUpToModified) ? inode.i_mtime_extra : 0);
    file.changed = time_of(inode.i_ctime, has(kUpToModified) ? inode.i_ctime_extra : 0);
    file.created = has(kUpToCreated) ? time_of(inode.i_crtime, inode.i_crtime_extra) : 0;
    return file;
}

std::optional<ExtFile> read_inode(ext2_filsys fs, ext2_ino_t number) {
    ext2_inode_large inode{};
    if (::ext2fs_read_inode_full(fs, number, reinterpret_cast<ext2_inode*>(&inode),
                                 sizeof(inode)) != 0) {
        return std::nullopt;
    }
    return describe(number, inode, EXT2_INODE_SIZE(fs->super) > EXT2_GOOD_OLD_INODE_SIZE);
}

struct Entry {
    std::string name;
    ext2_ino_t inode;
};

std::vector<Entry> entries_of(ext2_filsys fs, ext2_ino_t directory) {
    std::vector<Entry> entries;
    const auto add = [](ext2_ino_t, int, ext2_dir_entry* entry, int, int, char*, void* out) {
        const auto length = static_cast<size_t>(::ext2fs_dirent_name_len(entry));
        const std::string_view name(entry->name, length);
        const bool good = entry->inode != 0 && !name.empty() && name != "." && name != ".." &&
                          name.find('/') == name.npos && name.find('\0') == name.npos;
        if (good) {
            static_cast<std::vector<Entry>*>(out)->push_back({std::string(name), entry->inode});
        }
        return 0;
    };
    static_cast<void>(::ext2fs_dir_iterate2(fs, directory, 0, nullptr, add, &entries));
    return entries;
}

}  // namespace

Result<ExtTree> ExtTree::open(int file) {
    const off_t bytes = ::lseek(file, 0, SEEK_END);
    if (bytes < 0) {
        return fail_errno("cannot look at the image");
    }
    auto image = std::make_unique<Image>(file, static_cast<uint64_t>(bytes));
    ext2_filsys fs = nullptr;
    const errcode_t error =
        ::ext2fs_open2(image->name.c_str(), nullptr,
                       EXT2_FLAG_64BITS | EXT2_FLAG_IGNORE_CSUM_ERRORS, 0, 0, &image->manager, &fs);
    if (error != 0) {
        if (fs != nullptr) {
            ::ext2fs_free(fs);
        }
        return error == EXT2_ET_BAD_MAGIC
                   ? fail("there is no ext2, ext3 or ext4 file system at its beginning")
                   : fail("its file system cannot be read (error {} of libext2fs)",
                          error - EXT2_ET_BASE);
    }
    return ExtTree(std::move(image), fs);
}

ExtTree::ExtTree(std::unique_ptr<Image> image, struct_ext2_filsys* file_system)
    : image_(std::move(image)), file_system_(file_system), budget_(4 * image_->bytes) {}

ExtTree::ExtTree(ExtTree&& other) noexcept
    : image_(std::move(other.image_)),
      file_system_(std::exchange(other.file_system_, nullptr)),
      budget_(other.budget_) {}

ExtTree::~ExtTree() {
    if (file_system_ != nullptr) {
        ::ext2fs_free(file_system_);
    }
}

uint64_t ExtTree::bytes() const {
    return image_->bytes;
}

Result<void> ExtTree::walk(
    const std::function<Result<void>(const std::string& path, const ExtFile&)>& visit) const {
    struct Folder {
        std::string path;
        ext2_ino_t inode;
    };
    std::vector<Folder> waiting{{"", EXT2_ROOT_INO}};
    std::unordered_set<ext2_ino_t> seen{EXT2_ROOT_INO};  // a directory has one name
    size_t count = 0;
    while (!waiting.empty()) {
        const Folder folder = std::move(waiting.back());
        waiting.pop_back();
        for (const auto& entry : entries_of(file_system_, folder.inode)) {
            const auto file = read_inode(file_system_, entry.inode);
            std::string path = folder.path + "/" + entry.name;
            if (!file || path.size() > kMostPath) {
                continue;
            }
            if (++count > kMostFiles) {
                return fail("there are more than {} files", kMostFiles);
            }
            IVMM_TRY(visit(path, *file));
            if (S_ISDIR(file->mode) && seen.insert(entry.inode).second) {
                waiting.push_back({std::move(path), entry.inode});
            }
        }
    }
    return {};
}

bool ExtTree::is_in(const ExtFile& file, const std::vector<storage::ByteRange>& ranges) const {
    struct Search {
        const std::vector<storage::ByteRange>& ranges;
        uint64_t block_size = 0;
        bool found = false;
    } search{ranges, file_system_->blocksize};
    const auto look = [](ext2_filsys, blk64_t* block, e2_blkcnt_t, blk64_t, int, void* data) {
        auto& self = *static_cast<Search*>(data);
        const uint64_t offset = *block * self.block_size;
        const auto next = std::ranges::upper_bound(self.ranges, offset, {}, [](const auto& range) {
            return range.offset + range.length - 1;
        });
        // The first range that ends behind the block's beginning.
        self.found = next != self.ranges.end() && next->offset < offset + self.block_size;
        return self.found ? BLOCK_ABORT : 0;
    };
    static_cast<void>(::ext2fs_block_iterate3(file_system_, file.inode, BLOCK_FLAG_READ_ONLY,
                                              nullptr, look, &search));
    return search.found;
}

std::optional<std::string> ExtTree::sha256(const ExtFile& file) {
    if (file.bytes > budget_) {
        return std::nullopt;
    }
    budget_ -= file.bytes;
    ext2_file_t handle = nullptr;
    if (::ext2fs_file_open(file_system_, file.inode, 0, &handle) != 0) {
        return std::nullopt;
    }
    Sha256 digest;
    std::vector<std::byte> buffer(std::clamp<uint64_t>(file.bytes, 1, kPiece));
    unsigned got = 0;
    errcode_t error = 0;
    for (uint64_t left = file.bytes; left > 0; left -= std::min<uint64_t>(got, left)) {
        error =
            ::ext2fs_file_read(handle, buffer.data(), static_cast<unsigned>(buffer.size()), &got);
        if (error != 0 || got == 0) {
            break;
        }
        digest.update(ConstByteSpan(buffer).first(got));
    }
    ::ext2fs_file_close(handle);
    auto text = digest.finish();
    return error == 0 && text ? std::optional(*std::move(text)) : std::nullopt;
}

std::optional<std::string> ExtTree::link_target(const ExtFile& file) const {
    ext2_inode inode{};
    if (::ext2fs_read_inode(file_system_, file.inode, &inode) != 0) {
        return std::nullopt;
    }
    std::string target(std::min<uint64_t>(file.bytes, kMostPath), '\0');
    if (::ext2fs_is_fast_symlink(&inode) != 0) {
        target.resize(std::min(target.size(), sizeof(inode.i_block)));
        std::memcpy(target.data(), &inode.i_block, target.size());
        return target;
    }
    ext2_file_t handle = nullptr;
    unsigned got = 0;
    if (::ext2fs_file_open(file_system_, file.inode, 0, &handle) != 0) {
        return std::nullopt;
    }
    const errcode_t error =
        ::ext2fs_file_read(handle, target.data(), static_cast<unsigned>(target.size()), &got);
    ::ext2fs_file_close(handle);
    target.resize(got);
    return error == 0 ? std::optional(target) : std::nullopt;
}

}  // namespace ivmm::evidence
