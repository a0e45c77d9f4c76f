#include "storage/tools/diff.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <span>

#include "storage/layer/files.h"
#include "storage/union/object.h"

namespace ivmm::storage {
namespace {

using Visit = std::function<Result<void>(const DiffEntry&)>;
using Attributes = std::map<std::string, std::string>;

bool same_place(const Place& a, const Place& b) {
    return a.layer->number() == b.layer->number() && a.in_links == b.in_links && a.path == b.path;
}

/// How many parts at their ends two merged directories have in common.
size_t common_parts(const std::vector<Place>& a, const std::vector<Place>& b) {
    const auto differ = std::mismatch(a.rbegin(), a.rend(), b.rbegin(), b.rend(), same_place);
    return static_cast<size_t>(differ.first - a.rbegin());
}

PosixResult<Attributes> user_attributes(At at) {
    Attributes attributes;
    const auto names = list_xattrs(at);
    if (!names) {
        if (names.error().code == EOPNOTSUPP) {
            return attributes;
        }
        return UnexpectedError{names.error()};
    }
    for (const auto& name : *names) {
        if (!Marks::is_private(name)) {
            IVMM_ASSIGN(const auto value, get_xattr(at, name));
            attributes[name] = value.value_or("");
        }
    }
    return attributes;
}

PosixResult<bool> same_metadata(const Found& from, const Found& to) {
    const struct stat& a = from.attributes;
    const struct stat& b = to.attributes;
    if (a.st_mode != b.st_mode || a.st_uid != b.st_uid || a.st_gid != b.st_gid) {
        return false;
    }
    IVMM_ASSIGN(const auto left, user_attributes(from.places.front().at()));
    IVMM_ASSIGN(const auto right, user_attributes(to.places.front().at()));
    return left == right;
}

bool same_modification(const struct stat& a, const struct stat& b) {
    return a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

Unexpected about(const StoredTree& tree, const std::string& path, Errno error) {
    return fail("{}: {}: {}", tree.name, path, error_text(error.code));
}

class Walk {
 public:
    Walk(const StoredTree& from, const StoredTree& to, bool with_ranges, const Visit& visit)
        : from_(from), to_(to), with_ranges_(with_ranges), visit_(visit) {
        // A hard-linked file that one of the layers has copied up shows under names in directories
        // that the layer knows nothing of.
        for (const auto* tree : {&from_, &to_}) {
            const auto& other = tree == &from_ ? to_ : from_;
            for (const auto& layer : tree->stack) {
                const bool common = std::ranges::any_of(other.stack, [&](const auto& theirs) {
                    return theirs->number() == layer->number();
                });
                everywhere_ = everywhere_ || (!common && layer->has_links());
            }
        }
    }

    Result<void> run() {
        auto from = resolve(from_.stack, "/");
        if (!from) {
            return about(from_, "/", from.error());
        }
        auto to = resolve(to_.stack, "/");
        if (!to) {
            return about(to_, "/", to.error());
        }
        return compare("/", *from, *to);
    }

 private:
    Result<void> compare(const std::string& path, const std::optional<Found>& from,
                         const std::optional<Found>& to) {
        const bool same_type =
            from && to && (from->attributes.st_mode & S_IFMT) == (to->attributes.st_mode & S_IFMT);
        if (!same_type) {
            if (from) {
                IVMM_TRY(one_sided(path, DiffEntry::Kind::kRemoved, *from));
            }
            if (to) {
                IVMM_TRY(one_sided(path, DiffEntry::Kind::kAdded, *to));
            }
            return {};
        }
        if (!same_place(from->places.front(), to->places.front())) {
            IVMM_TRY(compare_objects(path, *from, *to));
        }
        if (from->is_directory()) {
            return compare_entries(path, from->places, to->places);
        }
        return {};
    }

    Result<void> compare_objects(const std::string& path, const Found& from, const Found& to) {
        DiffEntry entry{.path = path, .type = to.attributes.st_mode & S_IFMT};
        const auto same = same_metadata(from, to);
        if (!same) {
            return about(to_, path, same.error());
        }
        entry.metadata = !*same;
        switch (entry.type) {
            case S_IFREG:
                compare_files(from, to, &entry);
                entry.metadata =
                    entry.metadata ||
                    (!entry.content && !same_modification(from.attributes, to.attributes));
                break;
            case S_IFLNK: {
                const auto left = read_link_target(from.places.front().at());
                const auto right = read_link_target(to.places.front().at());
                if (!left || !right) {
                    return about(left ? to_ : from_, path, left ? right.error() : left.error());
                }
                entry.content = *left != *right;
                break;
            }
            case S_IFCHR:
            case S_IFBLK:
                entry.content = from.attributes.st_rdev != to.attributes.st_rdev;
                break;
            default:
                break;
        }
        return entry.content || entry.metadata ? visit_(entry) : Result<void>();
    }

    void compare_files(const Found& from, const Found& to, DiffEntry* entry) const {
        const auto left = open_file(from_.stack, from.places.front());
        const auto right = open_file(to_.stack, to.places.front());
        entry->content = true;
        if (!left || !right) {
            entry->error = left ? right.error().message : left.error().message;
            return;
        }
        auto ranges = changed_ranges(**left, **right, !with_ranges_);
        if (!ranges) {
            entry->error = error_text(ranges.error().code);
            return;
        }
        entry->content = !ranges->empty();
        if (with_ranges_) {
            entry->ranges = *std::move(ranges);
        }
    }

    /// Something, with all that is in it, that only one tree has.
    Result<void> one_sided(const std::string& path, DiffEntry::Kind kind, const Found& found) {
        IVMM_TRY(visit_({.kind = kind, .path = path, .type = found.attributes.st_mode & S_IFMT}));
        if (!found.is_directory()) {
            return {};
        }
        const std::vector<Place> none;
        return kind == DiffEntry::Kind::kRemoved ? compare_entries(path, found.places, none)
                                                 : compare_entries(path, none, found.places);
    }

    Result<void> compare_entries(const std::string& path, const std::vector<Place>& from,
                                 const std::vector<Place>& to) {
        const size_t common = everywhere_ ? 0 : common_parts(from, to);
        std::set<std::string> names;
        IVMM_TRY(add_names(from_, path, std::span(from).first(from.size() - common), &names));
        IVMM_TRY(add_names(to_, path, std::span(to).first(to.size() - common), &names));
        for (const auto& name : names) {
            const std::string child = fmt::format("{}/{}", path == "/" ? "" : path, name);
            const auto left = lookup(from_.stack, from, name);
            if (!left) {
                return about(from_, child, left.error());
            }
            const auto right = lookup(to_.stack, to, name);
            if (!right) {
                return about(to_, child, right.error());
            }
            IVMM_TRY(compare(child, *left, *right));
        }
        return {};
    }

    static Result<void> add_names(const StoredTree& tree, const std::string& path,
                                  std::span<const Place> parts, std::set<std::string>* names) {
        for (const auto& part : parts) {
            const At at = part.at();
            const auto listed = [&]() -> PosixResult<void> {
                IVMM_ASSIGN(const auto directory,
                            open_directory(at.dir, at.path[0] == '\0' ? "." : at.path));
                return for_each_entry(directory.get(), [&](const char* name, unsigned char) {
                    names->insert(name);
                    return PosixResult<void>();
                });
            }();
            if (!listed) {
                return about(tree, path, listed.error());
            }
        }
        return {};
    }

    const StoredTree& from_;
    const StoredTree& to_;
    const bool with_ranges_;
    const Visit& visit_;
    bool everywhere_ = false;  ///< names may differ whose directories are the same
};

}  // namespace

std::string_view type_name(mode_t mode) {
    switch (mode & S_IFMT) {
        case S_IFREG:
            return "file";
        case S_IFDIR:
            return "directory";
        case S_IFLNK:
            return "link";
        case S_IFIFO:
            return "fifo";
        case S_IFSOCK:
            return "socket";
        default:
            return "device";
    }
}

Result<void> diff(const StoredTree& from, const StoredTree& to, bool with_ranges,
                  const Visit& visit) {
    return Walk(from, to, with_ranges, visit).run();
}

}  // namespace ivmm::storage
