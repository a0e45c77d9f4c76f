#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "storage/layer/layer.h"

namespace ivmm::storage {

/// The directory that holds the writable layers of a union and the views on them:
///
///     STORE                 what this is, its uuid, mark style, the lower branches; checksummed
///     layers/N/MANIFEST     number, parent, state, generation, checksum (manifest.h)
///     layers/N/tree/        the files, with overlayfs-compatible marks
///     layers/N/maps/        block maps
///     layers/N/links/       hard-linked files that were copied up, by the origin of each
///     layers/N/work/        unfinished work; emptied when the layer is opened for writing
///     layers/NEXT           a number that no layer has had yet, checksummed
///     views/NAME            the number of the view's writable layer, checksummed
///     locks/NAME            locked by the process that serves the view, with its number
///
/// Names that start with a dot are unfinished work: layers/.N….new, layers/.N.dead, and
/// views/.N.next, which is to be the file of a view whose top is layer N, or was it before a fork.
/// A layer's number is never used again, but a flatten puts another directory in its place, which
/// shows the same over a lower parent.
///
/// Every file is replaced by write to a temporary file, fsync, rename, fsync of the directory,
/// except that a fork renames files that were synced beforehand and syncs nothing itself.
///
/// Who may write a layer: it is the top of exactly one view, and no layer that any view needs has
/// it as its parent. What a crash in a fork can leave behind (a view that still names a layer which
/// has children in use) is found by this rule when the store is opened, and the view gets a fresh
/// layer.
///
/// Several processes may have a store open; a view is served by one at a time (by the lock, which
/// the kernel releases when the process dies). Who serves a view owns the unused layers over its
/// top. An unsealed layer is locked by the process that has parts of it in memory (Layer::claim()).
/// Everything else that nobody needs is garbage; it is collected by an open() while no other
/// process has the store open (a shared lock on the directory). Nothing is deleted while a file
/// that could tell of a use is unreadable. Any thread.
class Store {
 public:
    struct ViewInfo {
        std::string name;
        uint32_t top = 0;
        bool served = false;  ///< some process holds its lock
    };

    /// A view that this process serves. Gives the lock back when destroyed.
    class [[nodiscard]] ViewLock;

    /// Opens a store, or makes one in an empty or missing directory, over these lower branches
    /// (topmost first; may be none). Errors: the directory is something else, the lower branches
    /// are not those of the store (none given: those of the store are taken), a format of a newer
    /// version, a corrupt file (names it).
    static Result<std::shared_ptr<Store>> open_or_create(const std::string& directory,
                                                         const std::vector<std::string>& lower);
    static Result<std::shared_ptr<Store>> open(const std::string& directory);

    const std::string& directory() const;
    const std::string& uuid() const;
    MarkStyle mark_style() const;
    /// The read-only branches at the bottom, topmost first. Numbers 1 … n.
    const std::vector<std::shared_ptr<Layer>>& lower() const;

    /// The views, sorted by name.
    Result<std::vector<ViewInfo>> views() const;
    /// All layers with their manifests, by number, spare ones included.
    Result<std::vector<Manifest>> manifests() const;
    /// The layers from number `top` down to the bottom branches. Same object for the same layer,
    /// as long as somebody holds it. For reading only.
    Result<std::vector<std::shared_ptr<Layer>>> stack(uint32_t top);

    /// Takes the lock of a view and gives its stack, the top one writable. With `create`, a view
    /// that does not exist yet is made, with a fresh layer over the lower branches alone. Frozen
    /// layers that a crash has left unsealed are sealed. Errors: no such view, somebody else serves
    /// it (says who: the pid in the lock file), another process has not sealed a layer of it yet.
    struct Attached;
    Result<Attached> attach(const std::string& view, bool create);

    /// Makes a fork of a view this process serves quick: `count` empty layers over its present top,
    /// and the view files that will name them, all on the medium. Gives the same layers again until
    /// they are used.
    struct Prepared {
        uint32_t parent = 0;
        std::vector<std::shared_ptr<Layer>> layers;  ///< first the one for the view itself
    };
    Result<Prepared> prepare(const ViewLock& view, size_t count);

    /// The store's part of a fork: `view` goes on with prepared.layers[0], and new views called
    /// `names` with the next ones, locked for this process. Renames only. Freezes the former top.
    /// Errors: nothing has happened.
    Result<std::vector<ViewLock>> commit(ViewLock& view, const Prepared& prepared,
                                         const std::vector<std::string>& names);

    /// That a new view may have this name: [A-Za-z0-9._-]{1,64}, not starting with '.', not taken.
    Result<void> check_new_name(const std::string& name) const;

    /// Writes that a frozen layer, its files and maps included, is on the medium (the caller has
    /// flushed the maps): syncfs, then the manifest. Errors are final.
    Result<void> seal(const Layer& layer);

    // --- flattening (store_runs.cc)

    /// Sealed layers in a row of a view's chain, topmost first, that one layer can replace: as
    /// what it is made on, each is needed by the one above it in the run alone. The uppermost may
    /// be needed by several; it is nobody's top.
    using Run = std::vector<uint32_t>;
    struct Runs {
        std::vector<Run> runs;          ///< of at least two layers, topmost first
        std::vector<std::string> kept;  ///< what other layers are not in one run, and why
    };
    Result<Runs> find_runs(const std::string& view) const;

    /// An empty layer that is to be put in the place of a run, with the number of its uppermost
    /// and over what is below it. Nobody sees it, and a crash makes it garbage.
    class [[nodiscard]] Replacement;
    Result<Replacement> make_replacement(const Run& run);

    /// Seals a replacement that shows the same as the run does, and puts it in the run's place, at
    /// one instant for all who are made on it. `served`: the views that this process serves and
    /// that `replaced` cares for; nobody else may serve views over the run. `replaced` is called
    /// then, while no view over the run can be mounted; if it gives true, what was replaced is
    /// taken out of the store. Deleting it takes longer: delete_leftovers().
    ///
    /// Errors: a view over the run is served by another process, or the run has changed.
    Result<void> replace_run(const Run& run, Replacement& replacement,
                             const std::set<std::string>& served,
                             const std::function<bool()>& replaced);
    /// After replace_run(): deletes what was replaced, except what others have open, which is left
    /// to the next open() of the store. If that has not come to it: deletes the replacement.
    Result<void> delete_leftovers(const Replacement& replacement);

    /// Deletes a view that nobody serves, and the layers that no other view needs. Safe at any
    /// crash: what is left is removed by the next open().
    Result<void> remove_view(const std::string& name);

    ~Store();

 private:
    struct Impl;
    explicit Store(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

class [[nodiscard]] Store::ViewLock {
 public:
    ViewLock(ViewLock&&) noexcept = default;
    ViewLock& operator=(ViewLock&&) noexcept = default;
    ~ViewLock() = default;
    const std::string& name() const { return name_; }

 private:
    friend class Store;
    ViewLock(std::string name, uint32_t top, UniqueFd lock)
        : name_(std::move(name)), top_(top), lock_(std::move(lock)) {}
    std::string name_;
    uint32_t top_;
    UniqueFd lock_;
};

class [[nodiscard]] Store::Replacement {
 public:
    const std::shared_ptr<Layer>& layer() const { return layer_; }

 private:
    friend class Store;
    Replacement(std::string name, std::shared_ptr<Layer> layer)
        : name_(name), layer_(std::move(layer)), leftovers_{std::move(name)} {}
    std::string name_;  ///< under layers/; after replace_run(), of what the run's uppermost was
    std::shared_ptr<Layer> layer_;
    bool used_ = false;
    std::vector<std::string> leftovers_;  ///< under layers/
};

struct Store::Attached {
    ViewLock lock;
    std::vector<std::shared_ptr<Layer>> stack;  ///< top first
};

}  // namespace ivmm::storage
