#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <vector>

#include "storage/union/object.h"
#include "storage/union/staged.h"
#include "storage/union/view.h"

namespace ivmm::storage {
namespace {

/// Files up to this size (bytes) are copied whole; of larger ones only the blocks that change.
constexpr uint64_t kWholeCopyLimit = 64 << 10;

PosixResult<void> copy_bytes(const Content& from, int to, uint64_t size) {
    std::vector<std::byte> buffer(std::min<uint64_t>(size, kWholeCopyLimit));
    Content target(nullptr, UniqueFd(::fcntl(to, F_DUPFD_CLOEXEC, 0)));
    for (uint64_t offset = 0; offset < size;) {
        const size_t wanted = std::min<uint64_t>(buffer.size(), size - offset);
        IVMM_ASSIGN(const size_t n, from.read(offset, ByteSpan(buffer).first(wanted)));
        if (n == 0) {
            break;
        }
        IVMM_TRY(target.write(offset, ByteSpan(buffer).first(n)));
        offset += n;
    }
    return {};
}

}  // namespace

PosixResult<std::string> View::lower_path(const Inode& inode) const {
    if (inode.names.empty()) {
        return std::string();  // the root
    }
    const Inode::Name& name = inode.names.front();
    std::string last = name.name;
    if (inode.is_directory() && in_top(inode)) {
        IVMM_ASSIGN(const auto redirect, inode.layer()->marks().redirect(at_of(inode)));
        if (redirect && redirect->starts_with('/')) {
            return *redirect;
        }
        last = redirect.value_or(last);
    }
    IVMM_ASSIGN(auto path, lower_path(*name.parent));
    return path + "/" + last;
}

PosixResult<void> View::copy_up(Inode& inode, uint64_t size_limit) {
    if (inode.removed) {
        // What was the top's when it was removed is nobody else's; anything else is below.
        return inode.nameless ? PosixResult<void>() : posix_error(ESTALE);
    }
    if (in_top(inode)) {
        return {};
    }
    IVMM_TRY(writable_top());
    return inode.is_directory() ? copy_up_directory(inode) : copy_up_other(inode, size_limit);
}

PosixResult<void> View::dress(const Layer& layer, const Layer& like) const {
    const At from{like.tree(), ""};
    const At to{layer.tree(), ""};
    IVMM_ASSIGN(const auto attributes, stat_object(from));
    IVMM_TRY(copy_metadata(from, attributes, to));
    return layer.marks().set_origin_inode(to, table_.root().number);
}

PosixResult<void> View::dress_root() {
    if (stack_.size() < 2 || !writable_) {
        return {};
    }
    const Layer& top = *stack_.front();
    // The mark tells that it was done before.
    if (top.marks().origin_inode({top.tree(), ""})) {
        return {};
    }
    const Layer& like = *stack_[1];
    const At root{like.tree(), ""};
    IVMM_ASSIGN(const auto attributes, stat_object(root));
    std::optional<uint64_t> number;
    if (like.in_store()) {
        number = like.marks().origin_inode(root);
    }
    table_.root().number = number.value_or(union_inode(like, attributes.st_ino));
    return dress(top, like);
}

PosixResult<void> View::place_copy(Inode& inode, Staged& copy) {
    Inode& parent = *inode.names.front().parent;
    IVMM_ASSIGN(const auto before, stat_object(at_of(parent)));
    const std::string path = path_of(inode);
    const At target{stack_.front()->tree(), path.c_str()};
    IVMM_TRY(copy.move_to(target, RENAME_NOREPLACE));
    parent.note_name_change();
    // Users have not changed the directory.
    return change_times(at_of(parent), before.st_atim, before.st_mtim);
}

PosixResult<void> View::copy_up_directory(Inode& inode) {
    Inode& parent = *inode.names.front().parent;
    IVMM_TRY(refresh(parent));
    IVMM_TRY(copy_up(parent));
    Layer& top = *stack_.front();
    IVMM_ASSIGN(const auto attributes, stat_object(at_of(inode)));
    Staged copy(top);
    if (::mkdirat(copy.at().dir, copy.at().path, 0700) != 0) {
        return last_posix_error();
    }
    IVMM_TRY(copy_metadata(at_of(inode), attributes, copy.at()));
    IVMM_TRY(top.marks().set_origin_inode(copy.at(), inode.number));
    IVMM_TRY(place_copy(inode, copy));
    inode.places.insert(inode.places.begin(), {&top, path_of(inode), false});
    return {};
}

PosixResult<void> View::copy_up_other(Inode& inode, uint64_t size_limit) {
    if (!inode.names.empty()) {
        Inode& parent = *inode.names.front().parent;
        IVMM_TRY(refresh(parent));
        IVMM_TRY(copy_up(parent));
    }
    Layer& top = *stack_.front();
    const At from = at_of(inode);
    IVMM_ASSIGN(const auto attributes, stat_object(from));
    auto staged = std::make_unique<Staged>(top);
    std::shared_ptr<Content> content;
    if (inode.is_regular()) {
        IVMM_ASSIGN(content, copy_content(inode, attributes, staged, size_limit));
    } else if (S_ISLNK(inode.type)) {
        IVMM_ASSIGN(const auto target, read_link_target(from));
        if (::symlinkat(target.c_str(), staged->at().dir, staged->at().path) != 0) {
            return last_posix_error();
        }
    } else if (::mknodat(staged->at().dir, staged->at().path, attributes.st_mode & ~077U,
                         attributes.st_rdev) != 0) {
        return last_posix_error();
    }
    Staged& copy = *staged;  // it may be one that an earlier try has made
    IVMM_TRY(copy_metadata(from, attributes, copy.at()));
    if (inode.is_regular()) {
        IVMM_TRY(top.marks().set_origin_inode(copy.at(), inode.number));
    }

    Place place{&top, "", false};
    const bool hard_linked = is_hard_linked(inode.places.front(), attributes);
    if (hard_linked) {
        // The other names are still below: lookups find this copy through its key.
        IVMM_ASSIGN(const auto seen, stat_inode(inode));
        IVMM_TRY(top.marks().set_link_count(copy.at(), static_cast<uint32_t>(seen.st_nlink)));
        IVMM_ASSIGN(const LinkId id, link_id(*inode.layer(), from, attributes));
        place = {&top, link_key(id), true};
        top.note_link();
        if (::linkat(copy.at().dir, copy.at().path, top.links(), place.path.c_str(), 0) != 0) {
            return last_posix_error();
        }
    }
    if (!inode.names.empty()) {
        IVMM_TRY(place_copy(inode, copy));
    } else if (!hard_linked) {
        return posix_error(ESTALE);  // it was removed, and is nobody's
    }
    inode.places = {std::move(place)};
    if (inode.names.empty()) {
        inode.nameless.reset();
    } else if (!hard_linked) {
        inode.places.front().path = path_of(inode);
    }
    if (hard_linked) {
        IVMM_ASSIGN(const auto copied, stat_object(at_of(inode)));
        table_.set_hard_linked(inode, {top.number(), copied.st_ino});
    }
    if (inode.opens > 0) {
        inode.set_content(std::move(content));
    }
    return {};
}

PosixResult<std::shared_ptr<Content>> View::copy_content(Inode& inode, const struct stat& from,
                                                         std::unique_ptr<Staged>& copy,
                                                         uint64_t size_limit) {
    const auto full_size = static_cast<uint64_t>(from.st_size);
    const uint64_t size = std::min(full_size, size_limit);
    const auto cut =
        [&](std::shared_ptr<Content> content) -> PosixResult<std::shared_ptr<Content>> {
        if (size < full_size) {
            IVMM_TRY(content->truncate(size));
        }
        return content;
    };
    if (inode.pending && inode.pending->generation == generation_) {
        if (!inode.pending->synced) {
            return posix_error(kRestart);  // another operation has begun it
        }
        const auto pending = std::exchange(inode.pending, nullptr);
        if (pending->error != 0) {
            return posix_error(pending->error);
        }
        copy = std::move(pending->staged);
        return cut(pending->content);
    }
    IVMM_ASSIGN(const auto source, content_of(inode));
    UniqueFd data(::openat(copy->at().dir, copy->at().path,
                           O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!data) {
        return last_posix_error();
    }
    if (size == 0) {
        return std::make_shared<Content>(stack_.front().get(), std::move(data));
    }
    const bool whole =
        inode.names.empty() || (full_size <= kWholeCopyLimit && source->blocks() == nullptr);
    if (!whole) {
        IVMM_ASSIGN(auto content, add_block_part(inode, *source, std::move(data), copy->at()));
        return cut(std::move(content));
    }
    IVMM_TRY(copy_bytes(*source, data.get(), full_size));
    auto content = std::make_shared<Content>(stack_.front().get(), std::move(data));
    inode.pending = std::make_shared<PendingCopy>(
        PendingCopy{generation_, std::move(copy), std::move(content), false, 0});
    unsynced_.push_back(inode.pending);
    return posix_error(kRestart);
}

void View::sync_copies() {
    std::vector<std::shared_ptr<PendingCopy>> copies;
    {
        const Tree tree = lock_tree();
        copies = unsynced_;
    }
    for (const auto& copy : copies) {
        const auto synced = copy->content->sync(true);
        const Tree tree = lock_tree();
        copy->synced = true;
        copy->error = synced ? 0 : synced.error().code;
        std::erase(unsynced_, copy);
    }
}

PosixResult<std::shared_ptr<Content>> View::add_block_part(Inode& inode, const Content& source,
                                                           UniqueFd data, At to) {
    Layer& top = *stack_.front();
    std::shared_ptr<BlockFile> lower = source.blocks();
    if (lower) {
        lower->freeze();
    } else {
        auto bottom = BlockFile::bottom(UniqueFd(::fcntl(source.fd(), F_DUPFD_CLOEXEC, 0)));
        if (!bottom) {
            return broken(bottom.error());
        }
        lower = *std::move(bottom);
    }
    Marks::BlockPart mark;
    mark.map = top.unique_name();
    IVMM_ASSIGN(mark.lower_path, lower_path(inode));
    UniqueFd map(::openat(top.maps(), mark.map.c_str(),
                          O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!map) {
        return last_posix_error();
    }
    IVMM_TRY(top.marks().set_block_part(to, mark));
    IVMM_ASSIGN(const auto attributes, stat_object({data.get(), ""}));
    BlockFile::Part part{std::move(data), std::move(map)};
    if (const auto made = BlockFile::create_part(part, lower->size()); !made) {
        return broken(made.error());
    }
    auto file = top.block_file(attributes.st_ino, [&] {
        return BlockFile::open(std::move(lower), std::move(part), true);
    });
    if (!file) {
        return broken(file.error());
    }
    return std::make_shared<Content>(&top, attributes.st_ino, *std::move(file));
}

}  // namespace ivmm::storage
