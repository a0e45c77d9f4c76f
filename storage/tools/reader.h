#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "storage/block/block_file.h"
#include "storage/layer/store.h"
#include "storage/union/lookup.h"

/// Reading a store as it is on the disk, without a mount and without disturbing those who serve it.
namespace ivmm::storage {

/// The tree of a view, or of a layer and those below it.
struct StoredTree {
    std::string name;  ///< for messages: view "web", layer 257
    Stack stack;       ///< topmost first
    /// A process has layers of it in use that are not sealed: what it has not flushed is missing,
    /// and what it writes meanwhile may be seen or not.
    bool live = false;
};

/// Opens the tree of a view, by its name, or of a layer, by its number; 0 is that of the lower
/// branches alone. A view whose name is a number comes first.
Result<StoredTree> open_tree(Store& store, const std::string& name);

/// Opens the regular file at a place of a stack, for reading. The stack must hold the place's layer
/// and may go afterwards: the file keeps open what it needs. Errors: it is no regular file, or a
/// part, a map or what is below is missing or damaged.
Result<std::shared_ptr<const BlockFile>> open_file(StackSpan stack, const Place& place);

}  // namespace ivmm::storage
