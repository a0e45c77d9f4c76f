#include "storage/flatten/merge.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "storage/layer/files.h"
#include "storage/union/object.h"

namespace ivmm::storage {
namespace {

using Node = RunTree::Node;

Unexpected cannot_merge(const std::string& path, Errno error) {
    return {{ErrorKind::kFailed, error.code,
             fmt::format("cannot merge /{}: {}", path, error_text(error.code))}};
}

/// The inode number that users see.
uint64_t seen_inode(const Node& node) {
    const Place& top = node.parts.front();
    return top.layer->marks().origin_inode(top.at()).value_or(
        union_inode(*top.layer, node.attributes.st_ino));
}

class Merge {
 public:
    Merge(const RunTree& tree, Layer& target, const GoOn& go_on)
        : tree_(tree), target_(target), marks_(target.marks()), go_on_(go_on) {}

    Result<void> run() {
        const auto root = tree_.root();
        if (!root) {
            return cannot_merge("", root.error());
        }
        IVMM_TRY(merge_entries(*root, ""));
        for (const auto& layer : tree_.run()) {
            IVMM_TRY(merge_links(*layer));
        }
        return {};
    }

 private:
    /// A name in the target.
    struct Target {
        int directory = -1;
        std::string path;

        At at() const { return {directory, path.c_str()}; }
    };

    /// What is in a directory, and then its own attributes.
    // NOLINTNEXTLINE(misc-no-recursion): no deeper than a path is long
    Result<void> merge_entries(const Node& directory, const std::string& path) {
        const auto names = names_in(directory);
        if (!names) {
            return cannot_merge(path, names.error());
        }
        for (const std::string& name : *names) {
            IVMM_TRY(merge_name(directory, name, join_path(path, name)));
        }
        const auto finished = [&]() -> PosixResult<void> {
            const Target target{target_.tree(), path};
            if (!names->empty()) {
                IVMM_TRY(marks_.set_impure(target.at()));
            }
            IVMM_TRY(marks_.set_origin_inode(target.at(), seen_inode(directory)));
            return copy_metadata(directory.parts.front().at(), directory.attributes, target.at());
        }();
        if (!finished) {
            return cannot_merge(path, finished.error());
        }
        return count(directory, path);
    }

    static PosixResult<std::set<std::string>> names_in(const Node& directory) {
        std::set<std::string> names;
        for (const Place& part : directory.parts) {
            const At at = part.at();
            IVMM_ASSIGN(const auto fd, open_directory(at.dir, at.path[0] == '\0' ? "." : at.path));
            IVMM_TRY(for_each_entry(
                fd.get(), [&](const char* name, unsigned char /*type*/) -> PosixResult<void> {
                    names.insert(name);
                    return {};
                }));
        }
        return names;
    }

    // NOLINTNEXTLINE(misc-no-recursion)
    Result<void> merge_name(const Node& directory, const std::string& name,
                            const std::string& path) {
        const auto node = tree_.lookup(directory, name);
        if (!node) {
            return cannot_merge(path, node.error());
        }
        const Target target{target_.tree(), path};
        if (!node->exists()) {
            const auto hidden = hide_below(directory, name, target);
            return hidden ? Result<void>() : cannot_merge(path, hidden.error());
        }
        if (node->parts.empty()) {
            return {};  // it is as it is below
        }
        if (!node->is_directory()) {
            return merge_other(*node, target);
        }
        if (const auto made = make_directory(directory, name, *node, target); !made) {
            return cannot_merge(path, made.error());
        }
        return merge_entries(*node, path);
    }

    PosixResult<void> hide_below(const Node& directory, const std::string& name,
                                 const Target& target) const {
        IVMM_ASSIGN(const bool shows, tree_.shows_from_below(directory, name));
        if (shows && ::mknodat(target.directory, target.path.c_str(), S_IFCHR, 0) != 0) {
            return last_posix_error();
        }
        return {};
    }

    PosixResult<void> make_directory(const Node& parent, const std::string& name, const Node& node,
                                     const Target& target) const {
        if (::mkdirat(target.directory, target.path.c_str(), S_IRWXU) != 0) {
            return last_posix_error();
        }
        if (!node.below) {
            IVMM_ASSIGN(const bool shows, tree_.shows_from_below(parent, name));
            return shows ? marks_.set_opaque(target.at()) : PosixResult<void>();
        }
        const bool in_place =
            parent.below && node.below->path == fmt::format("{}/{}", parent.below->path, name);
        return in_place ? PosixResult<void>() : marks_.set_redirect(target.at(), node.below->path);
    }

    /// Anything but a directory, or one more name of it.
    Result<void> merge_other(const Node& node, const Target& target) {
        const Place& from = node.parts.front();
        const bool hard_linked = is_hard_linked(from, node.attributes);
        const std::pair known_by(from.layer->number(), node.attributes.st_ino);
        if (const auto copy = copies_.find(known_by); hard_linked && copy != copies_.end()) {
            const Target& first = copy->second;
            if (::linkat(first.directory, first.path.c_str(), target.directory, target.path.c_str(),
                         0) != 0) {
                return cannot_merge(target.path, {errno});
            }
            return {};
        }
        IVMM_TRY(make_other(node, target));
        const auto finished = [&]() -> PosixResult<void> {
            IVMM_TRY(copy_metadata(from.at(), node.attributes, target.at()));
            IVMM_TRY(set_origin(node, target));
            return hard_linked ? set_links(node, target) : PosixResult<void>();
        }();
        if (!finished) {
            return cannot_merge(target.path, finished.error());
        }
        if (hard_linked) {
            copies_.emplace(known_by, target);
        }
        return count(node, target.path);
    }

    Result<void> make_other(const Node& node, const Target& target) const {
        const Place& from = node.parts.front();
        const auto& attributes = node.attributes;
        if (S_ISREG(attributes.st_mode)) {
            auto merged = merge_file(tree_, from, target_, target.at(), go_on_);
            return merged ? Result<void>()
                          : annotate(std::move(merged).error(),
                                     fmt::format("cannot merge /{}", target.path));
        }
        if (!S_ISLNK(attributes.st_mode)) {
            const mode_t type_and_owners = attributes.st_mode & ~077U;
            if (::mknodat(target.directory, target.path.c_str(), type_and_owners,
                          attributes.st_rdev) != 0) {
                return cannot_merge(target.path, {errno});
            }
            return {};
        }
        const auto leads_to = read_link_target(from.at());
        if (!leads_to) {
            return cannot_merge(target.path, leads_to.error());
        }
        if (::symlinkat(leads_to->c_str(), target.directory, target.path.c_str()) != 0) {
            return cannot_merge(target.path, {errno});
        }
        return {};
    }

    PosixResult<void> set_origin(const Node& node, const Target& target) const {
        const auto set = marks_.set_origin_inode(target.at(), seen_inode(node));
        // user.* attributes are for files and directories: the others get numbers as copies do.
        const bool needless = !S_ISREG(node.attributes.st_mode) && !set &&
                              set.error().code == EPERM && marks_.style() == MarkStyle::kUser;
        return needless ? PosixResult<void>() : set;
    }

    /// What the layers above and the users know of a hard-linked file.
    PosixResult<void> set_links(const Node& node, const Target& target) const {
        const Place& from = node.parts.front();
        IVMM_ASSIGN(const LinkId id, link_id(*from.layer, from.at(), node.attributes));
        IVMM_TRY(marks_.set_link_id(target.at(), id));
        const auto names = static_cast<uint32_t>(node.attributes.st_nlink);
        return marks_.set_link_count(target.at(),
                                     from.layer->marks().link_count(from.at()).value_or(names));
    }

    /// Files of below the run that a layer has copied up, by the keys that lead to them. (What the
    /// layers of the run have copied up of each other, their names lead to.)
    Result<void> merge_links(const Layer& layer) {
        std::set<std::string> keys;
        const auto read = for_each_entry(
            layer.links(), [&](const char* name, unsigned char /*type*/) -> PosixResult<void> {
                keys.insert(name);
                return {};
            });
        if (!read) {
            return cannot_merge("links", read.error());
        }
        for (const std::string& key : keys) {
            if (is_of_run(key)) {
                continue;
            }
            const auto node = linked(layer, key);
            if (!node) {
                return cannot_merge(key, node.error());
            }
            if (node->exists() && copied_keys_.insert(key).second) {
                IVMM_TRY(merge_other(*node, {target_.links(), key}));
                target_.note_link();
            }
        }
        return {};
    }

    bool is_of_run(const std::string& key) const {
        const auto id = parse_link_key(key);
        return id && std::ranges::find(tree_.run(), id->layer, &Layer::number) != tree_.run().end();
    }

    /// What a key in a layer's links/ stands for in the run; nothing if no name is left.
    PosixResult<Node> linked(const Layer& layer, const std::string& key) const {
        const auto at = std::ranges::find(tree_.run(), &layer, &std::shared_ptr<Layer>::get);
        Found found;
        found.places = {{at->get(), key, true}};
        IVMM_ASSIGN(found.attributes, stat_object(found.places.front().at()));
        IVMM_TRY(follow_links(tree_.stack(), &found));
        const Place& place = found.places.front();
        if (place.layer->marks().link_count(place.at()) == 0U) {
            return Node();
        }
        return Node{found.attributes, std::move(found.places), {}};
    }

    /// Notes an object that is done.
    Result<void> count(const Node& node, const std::string& path) {
        constexpr uint64_t kStatBlock = 512;
        const auto blocks = static_cast<uint64_t>(node.attributes.st_blocks);
        // Of regular files, what is copied is counted.
        const bool more = go_on_(S_ISREG(node.attributes.st_mode) ? 0 : blocks * kStatBlock);
        return more ? Result<void>() : cannot_merge(path, {ECANCELED});
    }

    const RunTree& tree_;
    Layer& target_;
    const Marks& marks_;
    const GoOn& go_on_;
    /// The copies of hard-linked files, by layer and inode of the original.
    std::map<std::pair<uint32_t, ino_t>, Target> copies_;
    std::set<std::string> copied_keys_;
};

}  // namespace

Result<void> merge_run(const RunTree& tree, Layer& target, const GoOn& go_on) {
    return Merge(tree, target, go_on).run();
}

}  // namespace ivmm::storage
