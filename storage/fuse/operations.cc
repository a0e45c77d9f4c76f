#include "storage/fuse/operations.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fuse.h>

#include <new>

#include "base/checked.h"
#include "storage/union/view.h"

namespace ivmm::storage {
namespace {

/// Names and attributes change through this mount alone, so the kernel may keep them.
constexpr double kCacheSeconds = 86400;

View& view_of(fuse_req_t request) {
    return *static_cast<View*>(fuse_req_userdata(request));
}

Inode& inode_of(fuse_req_t request, fuse_ino_t number) {
    // NOLINTNEXTLINE(*-reinterpret-cast,performance-no-int-to-ptr): the kernel repeats what we gave
    return number == FUSE_ROOT_ID ? view_of(request).root() : *reinterpret_cast<Inode*>(number);
}

Caller caller_of(fuse_req_t request) {
    const fuse_ctx* const context = fuse_req_ctx(request);
    return {context->uid, context->gid, context->umask};
}

void reply_error(fuse_req_t request, const Errno& error) {
    fuse_reply_err(request, error.code);
}

/// Answers with what went wrong, or with nothing.
void reply(fuse_req_t request, const PosixResult<void>& outcome) {
    fuse_reply_err(request, outcome ? 0 : outcome.error().code);
}

void reply(fuse_req_t request, const PosixResult<struct stat>& attributes) {
    if (!attributes) {
        reply_error(request, attributes.error());
    } else {
        fuse_reply_attr(request, &*attributes, kCacheSeconds);
    }
}

fuse_entry_param entry_param(const View::Entry& entry) {
    fuse_entry_param param{};
    // NOLINTNEXTLINE(*-reinterpret-cast)
    param.ino = reinterpret_cast<fuse_ino_t>(entry.inode);
    param.attr = entry.attributes;
    param.attr_timeout = kCacheSeconds;
    param.entry_timeout = kCacheSeconds;
    return param;
}

void reply(fuse_req_t request, const PosixResult<View::Entry>& entry) {
    if (!entry) {
        return reply_error(request, entry.error());
    }
    const fuse_entry_param param = entry_param(*entry);
    if (fuse_reply_entry(request, &param) == -ENOENT && entry->inode != nullptr) {
        view_of(request).forget(*entry->inode, 1);  // the caller was interrupted
    }
}

/// Runs one operation; what the C library above us must not see becomes its errno.
template <class Operation>
void answer(fuse_req_t request, Operation operation) {
    try {
        operation();
    } catch (const std::bad_alloc&) {
        fuse_reply_err(request, ENOMEM);
    }
}

void initialise(void* /*view*/, fuse_conn_info* connection) {
    constexpr unsigned kWanted = FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK | FUSE_CAP_CACHE_SYMLINKS;
    // Data are copied anyway; and it is the kernel that knows when to drop suid bits.
    constexpr unsigned kUnwanted = FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
                                   FUSE_CAP_SPLICE_MOVE | FUSE_CAP_HANDLE_KILLPRIV |
                                   FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_AUTO_INVAL_DATA;
    connection->want |= connection->capable & kWanted;
    connection->want &= ~kUnwanted;
    connection->max_background = 128;
    connection->congestion_threshold = 96;
}

void lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
    answer(request,
           [&] { reply(request, view_of(request).lookup(inode_of(request, parent), name)); });
}

void forget(fuse_req_t request, fuse_ino_t number, uint64_t lookups) {
    view_of(request).forget(inode_of(request, number), lookups);
    fuse_reply_none(request);
}

void forget_multi(fuse_req_t request, size_t count, fuse_forget_data* forgets) {
    for (const fuse_forget_data& one : std::span(forgets, count)) {
        view_of(request).forget(inode_of(request, one.ino), one.nlookup);
    }
    fuse_reply_none(request);
}

void getattr(fuse_req_t request, fuse_ino_t number, fuse_file_info* /*file*/) {
    answer(request,
           [&] { reply(request, view_of(request).attributes(inode_of(request, number))); });
}

void setattr(fuse_req_t request, fuse_ino_t number, struct stat* wanted, int which,
             fuse_file_info* /*file*/) {
    answer(request, [&] {
        AttributeChange change;
        if ((which & FUSE_SET_ATTR_MODE) != 0) {
            change.mode = wanted->st_mode;
        }
        if ((which & FUSE_SET_ATTR_UID) != 0) {
            change.uid = wanted->st_uid;
        }
        if ((which & FUSE_SET_ATTR_GID) != 0) {
            change.gid = wanted->st_gid;
        }
        if ((which & FUSE_SET_ATTR_SIZE) != 0) {
            change.size = static_cast<uint64_t>(wanted->st_size);
        }
        constexpr timespec kNow{0, UTIME_NOW};
        if ((which & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) != 0) {
            change.atime = (which & FUSE_SET_ATTR_ATIME_NOW) != 0 ? kNow : wanted->st_atim;
        }
        if ((which & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) != 0) {
            change.mtime = (which & FUSE_SET_ATTR_MTIME_NOW) != 0 ? kNow : wanted->st_mtim;
        }
        reply(request, view_of(request).set_attributes(inode_of(request, number), change));
    });
}

void readlink(fuse_req_t request, fuse_ino_t number) {
    answer(request, [&] {
        const auto target = view_of(request).read_link(inode_of(request, number));
        if (!target) {
            return reply_error(request, target.error());
        }
        fuse_reply_readlink(request, target->c_str());
    });
}

void mknod(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
    answer(request, [&] {
        reply(request, view_of(request).make_node(inode_of(request, parent), name, mode, device,
                                                  caller_of(request)));
    });
}

void mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
    answer(request, [&] {
        reply(request, view_of(request).make_directory(inode_of(request, parent), name, mode,
                                                       caller_of(request)));
    });
}

void symlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
    answer(request, [&] {
        reply(request, view_of(request).make_symlink(inode_of(request, parent), name, target,
                                                     caller_of(request)));
    });
}

void link(fuse_req_t request, fuse_ino_t number, fuse_ino_t parent, const char* name) {
    answer(request, [&] {
        reply(request, view_of(request).make_link(inode_of(request, number),
                                                  inode_of(request, parent), name));
    });
}

void unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
    answer(request,
           [&] { reply(request, view_of(request).unlink(inode_of(request, parent), name)); });
}

void rmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {
    answer(request, [&] {
        reply(request, view_of(request).remove_directory(inode_of(request, parent), name));
    });
}

void rename(fuse_req_t request, fuse_ino_t from, const char* from_name, fuse_ino_t to,
            const char* to_name, unsigned flags) {
    answer(request, [&] {
        reply(request, view_of(request).rename(inode_of(request, from), from_name,
                                               inode_of(request, to), to_name, flags));
    });
}

/// Whether the kernel is to hand requests on as they come, side by side. Not for ordinary users:
/// nobody would clear suid bits when they write.
bool wants_direct(fuse_req_t request, int flags) {
    return (flags & O_DIRECT) != 0 && fuse_req_ctx(request)->uid == 0;
}

void open(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
    answer(request, [&] {
        Inode& inode = inode_of(request, number);
        const auto may_keep_cache = view_of(request).open(inode, file->flags);
        if (!may_keep_cache) {
            return reply_error(request, may_keep_cache.error());
        }
        // The library's own reply has no way to ask for parallel direct writes.
        fuse_open_out out{};
        if (wants_direct(request, file->flags)) {
            out.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
        } else if (*may_keep_cache) {
            out.open_flags = FOPEN_KEEP_CACHE;
        }
        // NOLINTNEXTLINE(*-reinterpret-cast)
        if (fuse_reply_buf(request, reinterpret_cast<const char*>(&out), sizeof(out)) == -ENOENT) {
            view_of(request).close(inode);
        }
    });
}

void create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
            fuse_file_info* file) {
    answer(request, [&] {
        View& view = view_of(request);
        const auto entry = view.make_node(inode_of(request, parent), name, S_IFREG | (mode & 07777),
                                          0, caller_of(request));
        if (!entry) {
            return reply_error(request, entry.error());
        }
        if (const auto opened = view.open(*entry->inode, file->flags & ~O_TRUNC); !opened) {
            view.forget(*entry->inode, 1);
            return reply_error(request, opened.error());
        }
        file->direct_io = wants_direct(request, file->flags) ? 1 : 0;
        file->keep_cache = 1;
        const fuse_entry_param param = entry_param(*entry);
        if (fuse_reply_create(request, &param, file) == -ENOENT) {
            view.close(*entry->inode);
            view.forget(*entry->inode, 1);
        }
    });
}

void release(fuse_req_t request, fuse_ino_t number, fuse_file_info* /*file*/) {
    view_of(request).close(inode_of(request, number));
    fuse_reply_err(request, 0);
}

void read(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset,
          fuse_file_info* /*file*/) {
    answer(request, [&] {
        // One buffer a thread, as large as its largest request so far.
        thread_local std::vector<std::byte> buffer;
        if (buffer.size() < size) {
            buffer.resize(size);
        }
        const auto n = view_of(request).read(
            inode_of(request, number), static_cast<uint64_t>(offset), ByteSpan(buffer).first(size));
        if (!n) {
            return reply_error(request, n.error());
        }
        // NOLINTNEXTLINE(*-reinterpret-cast)
        fuse_reply_buf(request, reinterpret_cast<const char*>(buffer.data()), *n);
    });
}

void write(fuse_req_t request, fuse_ino_t number, const char* data, size_t size, off_t offset,
           fuse_file_info* /*file*/) {
    answer(request, [&] {
        const auto written =
            view_of(request).write(inode_of(request, number), static_cast<uint64_t>(offset),
                                   std::as_bytes(std::span(data, size)));
        if (!written) {
            return reply_error(request, written.error());
        }
        fuse_reply_write(request, size);
    });
}

void fsync(fuse_req_t request, fuse_ino_t number, int data_only, fuse_file_info* /*file*/) {
    answer(request, [&] {
        reply(request, view_of(request).sync(inode_of(request, number), data_only != 0));
    });
}

void fallocate(fuse_req_t request, fuse_ino_t number, int mode, off_t offset, off_t length,
               fuse_file_info* /*file*/) {
    answer(request, [&] {
        reply(request, view_of(request).allocate(inode_of(request, number), mode,
                                                 static_cast<uint64_t>(offset),
                                                 static_cast<uint64_t>(length)));
    });
}

void lseek(fuse_req_t request, fuse_ino_t number, off_t offset, int whence,
           fuse_file_info* /*file*/) {
    answer(request, [&] {
        const auto found =
            view_of(request).seek(inode_of(request, number), static_cast<uint64_t>(offset), whence);
        if (!found) {
            return reply_error(request, found.error());
        }
        fuse_reply_lseek(request, static_cast<off_t>(*found));
    });
}

Listing& listing_of(const fuse_file_info* file) {
    // NOLINTNEXTLINE(*-reinterpret-cast,performance-no-int-to-ptr): what opendir() gave
    return *reinterpret_cast<Listing*>(file->fh);
}

void opendir(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
    answer(request, [&] {
        Inode& directory = inode_of(request, number);
        auto listing = view_of(request).open_directory(directory);
        if (!listing) {
            return reply_error(request, listing.error());
        }
        // NOLINTNEXTLINE(*-reinterpret-cast)
        file->fh = reinterpret_cast<uint64_t>(listing->release());
        file->cache_readdir = 1;
        file->keep_cache = 1;
        if (fuse_reply_open(request, file) == -ENOENT) {
            const std::unique_ptr<Listing> unused(&listing_of(file));
            view_of(request).close_directory(directory);
        }
    });
}

void releasedir(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
    const std::unique_ptr<Listing> listing(&listing_of(file));
    view_of(request).close_directory(inode_of(request, number));
    fuse_reply_err(request, 0);
}

/// The entry at a position: "." and "..", then what the directory has.
const Listing::Item& item_at(const Listing& listing, size_t position) {
    static const Listing::Item kDot{".", 1, DT_DIR};
    static const Listing::Item kDotDot{"..", 1, DT_DIR};
    return position == 0 ? kDot : position == 1 ? kDotDot : listing.items()[position - 2];
}

/// Fills the kernel's buffer from a position on. `add` puts one entry there and gives the size it
/// needs; it has no effect if that is more than there is.
template <class Add>
void fill(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, fuse_file_info* file,
          Add add) {
    Listing& listing = listing_of(file);
    if (offset == 0) {
        if (const auto read = view_of(request).rewind(inode_of(request, number), listing); !read) {
            return reply_error(request, read.error());
        }
    }
    std::vector<char> buffer(size);
    size_t used = 0;
    for (auto position = static_cast<size_t>(offset); position < listing.items().size() + 2;
         ++position) {
        const size_t n = add(std::span(buffer).subspan(used), item_at(listing, position),
                             static_cast<off_t>(position + 1));
        if (n > size - used) {
            break;
        }
        used += n;
    }
    fuse_reply_buf(request, buffer.data(), used);
}

void readdir(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset,
             fuse_file_info* file) {
    answer(request, [&] {
        fill(request, number, size, offset, file,
             [&](std::span<char> out, const Listing::Item& item, off_t next) {
                 struct stat attributes {};
                 attributes.st_ino = item.inode;
                 attributes.st_mode = static_cast<mode_t>(DTTOIF(item.type));
                 return fuse_add_direntry(request, out.data(), out.size(), item.name.c_str(),
                                          &attributes, next);
             });
    });
}

void readdirplus(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset,
                 fuse_file_info* file) {
    answer(request, [&] {
        View& view = view_of(request);
        Inode& directory = inode_of(request, number);
        fill(request, number, size, offset, file,
             [&](std::span<char> out, const Listing::Item& item, off_t next) {
                 const char* const name = item.name.c_str();
                 const size_t n = fuse_add_direntry_plus(request, nullptr, 0, name, nullptr, 0);
                 if (n > out.size()) {
                     return n;
                 }
                 fuse_entry_param param{};
                 param.attr.st_ino = item.inode;
                 param.attr.st_mode = static_cast<mode_t>(DTTOIF(item.type));
                 if (item.name != "." && item.name != "..") {
                     const auto entry = view.lookup(directory, item.name);
                     if (entry && entry->inode != nullptr) {
                         param = entry_param(*entry);
                     }
                 }
                 return fuse_add_direntry_plus(request, out.data(), out.size(), name, &param, next);
             });
    });
}

void statfs(fuse_req_t request, fuse_ino_t /*number*/) {
    answer(request, [&] {
        const auto statistics = view_of(request).statistics();
        if (!statistics) {
            return reply_error(request, statistics.error());
        }
        fuse_reply_statfs(request, &*statistics);
    });
}

void setxattr(fuse_req_t request, fuse_ino_t number, const char* name, const char* value,
              size_t size, int flags) {
    answer(request, [&] {
        reply(request,
              view_of(request).set_xattr(inode_of(request, number), name, {value, size}, flags));
    });
}

void reply_sized(fuse_req_t request, std::string_view value, size_t room) {
    if (room == 0) {
        fuse_reply_xattr(request, value.size());
    } else if (value.size() > room) {
        fuse_reply_err(request, ERANGE);
    } else {
        fuse_reply_buf(request, value.data(), value.size());
    }
}

void getxattr(fuse_req_t request, fuse_ino_t number, const char* name, size_t size) {
    answer(request, [&] {
        const auto value = view_of(request).xattr(inode_of(request, number), name);
        if (!value) {
            return reply_error(request, value.error());
        }
        if (!*value) {
            return reply_error(request, {ENODATA});
        }
        reply_sized(request, **value, size);
    });
}

void listxattr(fuse_req_t request, fuse_ino_t number, size_t size) {
    answer(request, [&] {
        const auto names = view_of(request).xattrs(inode_of(request, number));
        if (!names) {
            return reply_error(request, names.error());
        }
        std::string all;
        for (const std::string& name : *names) {
            all += name;
            all += '\0';
        }
        reply_sized(request, all, size);
    });
}

void removexattr(fuse_req_t request, fuse_ino_t number, const char* name) {
    answer(request,
           [&] { reply(request, view_of(request).remove_xattr(inode_of(request, number), name)); });
}

fuse_lowlevel_ops make_operations() {
    fuse_lowlevel_ops operations{};
    operations.init = initialise;
    operations.lookup = lookup;
    operations.forget = forget;
    operations.forget_multi = forget_multi;
    operations.getattr = getattr;
    operations.setattr = setattr;
    operations.readlink = readlink;
    operations.mknod = mknod;
    operations.mkdir = mkdir;
    operations.symlink = symlink;
    operations.link = link;
    operations.unlink = unlink;
    operations.rmdir = rmdir;
    operations.rename = rename;
    operations.open = open;
    operations.create = create;
    operations.release = release;
    operations.read = read;
    operations.write = write;
    operations.fsync = fsync;
    operations.fallocate = fallocate;
    operations.lseek = lseek;
    operations.opendir = opendir;
    operations.releasedir = releasedir;
    operations.readdir = readdir;
    operations.readdirplus = readdirplus;
    operations.fsyncdir = fsync;
    operations.statfs = statfs;
    operations.setxattr = setxattr;
    operations.getxattr = getxattr;
    operations.listxattr = listxattr;
    operations.removexattr = removexattr;
    return operations;
}

}  // namespace

const fuse_lowlevel_ops& fuse_operations() {
    static const fuse_lowlevel_ops kOperations = make_operations();
    return kOperations;
}

}  // namespace ivmm::storage
