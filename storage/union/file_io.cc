#include <fcntl.h>
#include <unistd.h>

#include "storage/union/view.h"

namespace ivmm::storage {
namespace {

/// Opens a regular file of a layer, whatever else may be there.
UniqueFd open_file(At at, int flags) {
    if (at.path[0] == '\0') {
        return UniqueFd(::open(fmt::format("/proc/self/fd/{}", at.dir).c_str(), flags | O_CLOEXEC));
    }
    return UniqueFd(::openat(at.dir, at.path, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
}

}  // namespace

UnexpectedError<Errno> View::broken(const Error& error) const {
    throttle_.warning("{}", error.message);
    return posix_error(error.code != 0 ? error.code : EIO);
}

PosixResult<std::shared_ptr<Content>> View::content_of(Inode& inode) {
    if (auto content = inode.current_content()) {
        return content;
    }
    return open_content(at_of(inode), *inode.layer());
}

PosixResult<std::shared_ptr<Content>> View::open_content(At at, Layer& layer) const {
    const bool writable = writable_ && &layer == stack_.front().get();
    UniqueFd file = open_file(at, writable ? O_RDWR : O_RDONLY);
    struct stat attributes {};
    if (!file || ::fstat(file.get(), &attributes) != 0) {
        return last_posix_error();
    }
    if (!S_ISREG(attributes.st_mode)) {
        return posix_error(EIO);
    }
    std::optional<Marks::BlockPart> mark;
    if (layer.in_store()) {
        IVMM_ASSIGN(mark, layer.marks().block_part(at));
    }
    if (!mark) {
        return std::make_shared<Content>(&layer, std::move(file));
    }
    auto blocks = layer.block_file(attributes.st_ino, [&]() -> Result<std::shared_ptr<BlockFile>> {
        auto lower = block_file_below(layer, mark->lower_path);
        if (!lower) {
            return fail("{}: what {} is a part of cannot be opened: {}", layer.name(), at.path,
                        error_text(lower.error().code));
        }
        UniqueFd map = open_file({layer.maps(), mark->map.c_str()}, writable ? O_RDWR : O_RDONLY);
        if (!map) {
            return fail_errno("{}: cannot open the block map of {}", layer.name(), at.path);
        }
        return BlockFile::open(*std::move(lower), {std::move(file), std::move(map)}, writable);
    });
    if (!blocks) {
        return broken(blocks.error());
    }
    return std::make_shared<Content>(&layer, attributes.st_ino, *std::move(blocks));
}

PosixResult<std::shared_ptr<const BlockFile>> View::block_file_below(
    const Layer& layer, const std::string& path) const {
    IVMM_ASSIGN(const auto found, resolve(below(stack_, &layer), path));
    if (!found) {
        return posix_error(ENOENT);
    }
    const Place& place = found->places.front();
    IVMM_ASSIGN(const auto content, open_content(place.at(), *place.layer));
    if (content->blocks()) {
        return std::shared_ptr<const BlockFile>(content->blocks());
    }
    auto bottom = BlockFile::bottom(UniqueFd(::fcntl(content->fd(), F_DUPFD_CLOEXEC, 0)));
    if (!bottom) {
        return broken(bottom.error());
    }
    return std::shared_ptr<const BlockFile>(*std::move(bottom));
}

PosixResult<bool> View::open(Inode& inode, int flags) {
    return run([&]() -> PosixResult<bool> {
        IVMM_TRY(refresh(inode));
        if ((flags & O_ACCMODE) != O_RDONLY && !inode.removed) {
            IVMM_TRY(writable_top());
        }
        if ((flags & O_TRUNC) != 0) {
            IVMM_TRY(copy_up(inode, 0));
        }
        IVMM_ASSIGN(auto content, content_of(inode));
        if ((flags & O_TRUNC) != 0) {
            IVMM_TRY(content->truncate(0));
            content->keep_until_flushed();
        }
        if (inode.opens++ == 0) {
            inode.set_content(std::move(content));
        }
        ++open_count_;
        inode.direct = inode.direct || (flags & O_DIRECT) != 0;
        return !inode.direct;
    });
}

void View::close(Inode& inode) {
    const Tree tree = lock_tree();
    --open_count_;
    if (--inode.opens == 0) {
        inode.set_content(nullptr);
        table_.drop_if_unused(&inode);
    }
}

PosixResult<size_t> View::read(Inode& inode, uint64_t offset, ByteSpan out) {
    const Gate::Pass pass(gate_);
    return inode.current_content()->read(offset, out);
}

PosixResult<void> View::change_content(Inode& inode,
                                       const std::function<PosixResult<void>(Content&)>& change) {
    const auto apply = [&](Content& content) {
        auto changed = change(content);
        content.keep_until_flushed();
        return changed;
    };
    {
        const Gate::Pass pass(gate_);
        const auto content = inode.current_content();
        if (writable_ && content->layer() == stack_.front().get()) {
            return apply(*content);
        }
    }
    return run([&]() -> PosixResult<void> {
        IVMM_TRY(refresh(inode));
        IVMM_TRY(copy_up(inode));
        return apply(*inode.current_content());
    });
}

PosixResult<void> View::write(Inode& inode, uint64_t offset, ConstByteSpan data) {
    return change_content(inode, [&](Content& content) { return content.write(offset, data); });
}

PosixResult<void> View::allocate(Inode& inode, int mode, uint64_t offset, uint64_t length) {
    return change_content(inode,
                          [&](Content& content) { return content.allocate(mode, offset, length); });
}

PosixResult<uint64_t> View::seek(Inode& inode, uint64_t offset, int whence) {
    const Gate::Pass pass(gate_);
    return inode.current_content()->seek(offset, whence);
}

PosixResult<std::vector<View::UnsyncedNames>> View::unsynced_names(Inode& inode) {
    std::vector<UnsyncedNames> found;
    std::vector<Inode*> left{&inode};
    while (!left.empty()) {
        Inode& at = *left.back();
        left.pop_back();
        if (at.removed) {
            continue;
        }
        IVMM_TRY(refresh(at));
        if (at.is_directory() && in_top(at)) {
            auto changes = at.changes_of_names();
            const uint64_t made = changes->made;
            if (changes->synced < made) {
                const At place = at_of(at);
                UniqueFd directory(::openat(place.dir, place.path[0] == '\0' ? "." : place.path,
                                            O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
                if (!directory) {
                    return last_posix_error();
                }
                found.push_back({std::move(directory), std::move(changes), made});
            }
        }
        for (const auto& name : at.names) {
            left.push_back(name.parent);
        }
    }
    return found;
}

PosixResult<void> View::sync(Inode& inode, bool data_only) {
    Stack stack;
    std::shared_ptr<Content> content;
    std::vector<UnsyncedNames> names;
    {
        const Gate::Pass pass(gate_);
        const Tree tree = lock_tree();
        IVMM_TRY(refresh(inode));
        stack = stack_;
        content = inode.current_content();
        IVMM_ASSIGN(names, unsynced_names(inode));
    }
    if (content && writable_ && content->layer() == stack.front().get()) {
        IVMM_TRY(content->sync(data_only));
    }
    for (const auto& [directory, changes, made] : names) {
        if (::fsync(directory.get()) != 0) {
            return last_posix_error();
        }
        changes->are_synced(made);
    }
    for (const auto& layer : stack) {
        if (layer->frozen()) {
            IVMM_TRY(layer->wait_sealed());
        }
    }
    return {};
}

}  // namespace ivmm::storage
