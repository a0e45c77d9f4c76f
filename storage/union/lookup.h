#pragma once

#include <sys/stat.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "storage/layer/layer.h"

/// The rules of the union: which object of which layer a name stands for
/// (Documentation/filesystems/overlayfs.rst).
namespace ivmm::storage {

/// The layers of a view, the topmost first. Whoever holds it keeps them alive.
using Stack = std::vector<std::shared_ptr<Layer>>;
using StackSpan = std::span<const std::shared_ptr<Layer>>;

/// Where an object is in one layer.
struct Place {
    Layer* layer = nullptr;
    std::string path;       ///< from the layer's tree; "" is the tree itself
    bool in_links = false;  ///< `path` is a name in the layer's links/ instead

    /// For *at() calls; valid as long as this is.
    At at() const;
};

/// "a" and "b" to "a/b"; a root is "".
std::string join_path(std::string_view directory, std::string_view name);

/// What a name stands for.
struct Found {
    struct stat attributes {};  ///< of the topmost object, as its file system gives them
    /// Of a directory: its parts in the layers, topmost first. Of anything else: its one place.
    std::vector<Place> places;

    bool is_directory() const { return S_ISDIR(attributes.st_mode); }
};

bool is_whiteout(const struct stat& attributes);

/// The parts of the root directory of a stack.
std::vector<Place> root_places(StackSpan stack);

/// Looks a name up in a merged directory. `stack` is what the directory's layers belong to. No
/// value: there is no such name.
PosixResult<std::optional<Found>> lookup(StackSpan stack, std::span<const Place> directory,
                                         std::string_view name);

/// Looks a path up from the root of a stack ("/a/b").
PosixResult<std::optional<Found>> resolve(StackSpan stack, std::string_view path);

/// The part of a stack that lies below a layer.
StackSpan below(StackSpan stack, const Layer* layer);

/// Whether a file has, or may have, several names in the union.
bool is_hard_linked(const Place& place, const struct stat& attributes);
PosixResult<LinkId> link_id(const Layer& layer, At file, const struct stat& attributes);

/// Follows a hard-linked file to its topmost copy in the links/ of the layers.
PosixResult<void> follow_links(StackSpan stack, Found* found);

/// The inode number that users see: of a file of this layer that was not copied up.
uint64_t union_inode(const Layer& layer, uint64_t inode);

}  // namespace ivmm::storage
