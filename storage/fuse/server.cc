#include "storage/fuse/server.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <set>

#include "base/log.h"
#include "storage/fuse/background.h"
#include "storage/fuse/session.h"
#include "storage/layer/store.h"
#include "storage/union/view.h"

namespace ivmm::storage {
namespace {

/// How often changes that nobody has asked to be flushed go to the medium.
constexpr std::chrono::seconds kFlushPeriod{5};
/// Layers that are kept ready: one for the view itself and one for a new view.
constexpr size_t kSpareLayers = 2;

/// Merged directories and long chains take a descriptor for each layer.
void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        ::setrlimit(RLIMIT_NOFILE, &limit);
    }
}

Result<std::string> real_directory(const std::string& path) {
    const std::unique_ptr<char, void (*)(void*)> resolved(::realpath(path.c_str(), nullptr),
                                                          &::free);
    struct stat attributes {};
    if (!resolved || ::stat(resolved.get(), &attributes) != 0) {
        return fail_errno("cannot mount on {}", path);
    }
    if (!S_ISDIR(attributes.st_mode)) {
        return fail("cannot mount on {}: it is not a directory", path);
    }
    return std::string(resolved.get());
}

/// A view that is mounted.
struct Mounted {
    std::string name;
    std::string mountpoint;
    std::optional<Store::ViewLock> lock;  // none: a read-only union without a store
    std::unique_ptr<View> view;
    std::unique_ptr<FuseSession> session;
    std::atomic<bool> to_be_flattened = false;
    std::mutex fork_mutex;  // guards `prepared`, which belongs to the present top
    Store::Prepared prepared;
    uint64_t forks = 0;
};

}  // namespace

struct OverlayServer::Impl {
    std::string source;  // what mount(8) shows
    std::shared_ptr<Store> store;
    std::function<void(const std::string&)> on_unmounted;
    uint32_t flatten_from = 0;
    std::atomic<bool> stopping = false;
    /// Of those who change which views there are, or what layers they have; before all others.
    std::mutex structure;
    mutable std::mutex mutex;                                // guards what follows
    std::map<std::string, std::shared_ptr<Mounted>> mounts;  // by view
    std::string error;                                       // the first that ended durability
    std::optional<FlattenStatus> flattening;
    // The last members: their tasks use the others.
    std::unique_ptr<Background> background;
    std::unique_ptr<Background> flattener;  // what takes longer than others are to wait

    std::shared_ptr<Mounted> find(const std::string& view) const {
        const std::scoped_lock lock(mutex);
        const auto at = mounts.find(view);
        return at == mounts.end() ? nullptr : at->second;
    }

    std::vector<std::shared_ptr<Mounted>> all_mounted() const {
        const std::scoped_lock lock(mutex);
        std::vector<std::shared_ptr<Mounted>> all;
        for (const auto& [name, mounted] : mounts) {
            all.push_back(mounted);
        }
        return all;
    }

    void note(const std::string& message) {
        log::error("{}", message);
        const std::scoped_lock lock(mutex);
        if (error.empty()) {
            error = message;
        }
    }

    void flush(Layer& layer) {
        if (const auto flushed = layer.flush_block_files(); !flushed) {
            note(fmt::format("{}: what was written may be lost: {}", layer.name(),
                             error_text(flushed.error().code)));
        }
    }

    /// Makes a frozen layer durable.
    void seal(const std::shared_ptr<Layer>& layer) {
        if (const auto flushed = layer->flush_block_files(); !flushed) {
            note(fmt::format("{} cannot be sealed: {}", layer->name(),
                             error_text(flushed.error().code)));
            return layer->set_sealed(flushed);
        }
        if (const auto sealed = store->seal(*layer); !sealed) {
            note(sealed.error().message);
            return layer->set_sealed(
                posix_error(sealed.error().code != 0 ? sealed.error().code : EIO));
        }
        layer->set_sealed({});
    }

    /// The caller holds the view's fork mutex.
    Result<void> prepare(Mounted& mounted, size_t count) {
        if (mounted.prepared.layers.size() < count) {
            IVMM_ASSIGN(mounted.prepared, store->prepare(*mounted.lock, count));
        }
        return {};
    }

    void prepare_later(const std::shared_ptr<Mounted>& mounted) {
        background->post([this, mounted] {
            const std::scoped_lock lock(mounted->fork_mutex);
            if (const auto prepared = prepare(*mounted, kSpareLayers); !prepared) {
                log::warning("the next fork of {} will take longer: {}", mounted->name,
                             prepared.error().message);
            }
        });
    }

    /// Serves a stack that this process may serve.
    Result<void> serve(std::string name, std::optional<Store::ViewLock> lock, Stack stack,
                       const MountOptions& options) {
        IVMM_ASSIGN(std::string mountpoint, real_directory(options.mountpoint));
        auto mounted = std::make_shared<Mounted>();
        const bool writable = lock.has_value() && !options.read_only;
        mounted->name = name;
        mounted->mountpoint = mountpoint;
        mounted->lock = std::move(lock);
        mounted->view = std::make_unique<View>(std::move(stack), writable);
        if (const auto dressed = mounted->view->dress_root(); !dressed) {
            return fail("cannot set the attributes of the root directory: {}",
                        error_text(dressed.error().code));
        }
        MountOptions resolved = options;
        resolved.mountpoint = mountpoint;
        resolved.read_only = !writable;
        IVMM_ASSIGN(mounted->session,
                    FuseSession::start(*mounted->view, source, resolved,
                                       [this, mountpoint] { on_unmounted(mountpoint); }));
        {
            const std::scoped_lock guard(mutex);
            mounts.emplace(std::move(name), mounted);
        }
        if (writable) {
            prepare_later(mounted);
        }
        return {};
    }

    /// Ends a mount and makes what it wrote durable.
    void retire(const std::shared_ptr<Mounted>& mounted) {
        mounted->session.reset();
        background->drain();
        const Stack stack = mounted->view->stack();
        mounted->view.reset();
        if (mounted->lock) {
            flush(*stack.front());
            if (::syncfs(stack.front()->tree()) != 0) {
                note(fmt::format("{}: what was written last may be lost: {}", mounted->mountpoint,
                                 error_text(errno)));
            }
        }
    }

    /// The view that is to be forked.
    Result<std::shared_ptr<Mounted>> find_forkable(const std::string& view) const {
        auto mounted = find(view);
        if (!mounted) {
            return fail("view '{}' is not mounted", view);
        }
        if (!mounted->lock) {
            return fail("{} is a read-only union: there is nothing to fork", mounted->mountpoint);
        }
        return mounted;
    }

    /// Puts a layer in the place of a run, in the store and in all views that are mounted.
    Result<void> replace(const Store::Run& run, StackSpan layers, Store::Replacement& replacement) {
        const std::scoped_lock lock(structure);
        const auto all = all_mounted();
        std::set<std::string> served;
        for (const auto& mounted : all) {
            served.insert(mounted->name);
        }
        return store->replace_run(run, replacement, served, [&] {
            bool replaced = true;
            for (const auto& mounted : all) {
                const Stack stack = mounted->view->stack();
                if (std::ranges::find(stack, layers.front()) != stack.end()) {
                    replaced =
                        mounted->view->replace_layers(layers, replacement.layer()) && replaced;
                }
            }
            return replaced;
        });
    }

    /// On the flattener.
    Result<FlattenReport> flatten(const std::string& view) {
        FlattenOptions options;
        options.progress = [&](double done) {
            const std::scoped_lock lock(mutex);
            flattening = FlattenStatus{view, done};
            return !stopping;
        };
        options.replace = [&](const Store::Run& run, StackSpan layers,
                              Store::Replacement& replacement) {
            return replace(run, layers, replacement);
        };
        auto report = storage::flatten(*store, view, options);
        const std::scoped_lock lock(mutex);
        flattening.reset();
        return report;
    }

    void flatten_if_long(const std::shared_ptr<Mounted>& mounted) {
        const Stack stack = mounted->view->stack();
        const auto layers = std::ranges::count_if(stack, &Layer::in_store);
        if (flatten_from == 0 || layers <= flatten_from ||
            mounted->to_be_flattened.exchange(true)) {
            return;
        }
        flattener->post([this, mounted] {
            mounted->to_be_flattened = false;
            const auto flattened = [&]() -> Result<void> {
                IVMM_ASSIGN(const auto found, store->find_runs(mounted->name));
                size_t fewer = 0;
                for (const auto& run : found.runs) {
                    fewer += run.size() - 1;
                }
                // Else the same data would be copied again and again.
                if (fewer >= std::max<size_t>(1, flatten_from / 2)) {
                    IVMM_TRY(flatten(mounted->name));
                }
                return {};
            }();
            if (!flattened && !stopping) {
                log::warning("view {} is not flattened: {}", mounted->name,
                             flattened.error().message);
            }
        });
    }

    Result<void> check_targets(const std::vector<ForkTarget>& targets) const {
        if (targets.empty()) {
            return fail_as(ErrorKind::kUsage, "a fork needs the name of a new view");
        }
        for (size_t i = 0; i < targets.size(); ++i) {
            IVMM_TRY(store->check_new_name(targets[i].view));
            for (size_t j = 0; j < i; ++j) {
                if (targets[i].view == targets[j].view) {
                    return fail_as(ErrorKind::kUsage, "view '{}' is named twice", targets[i].view);
                }
            }
            if (targets[i].mount) {
                IVMM_TRY(real_directory(targets[i].mount->mountpoint));
            }
        }
        return {};
    }
};

OverlayServer::OverlayServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<OverlayServer>> OverlayServer::start(
    const Options& options, std::function<void(const std::string& mountpoint)> on_unmounted) {
    raise_descriptor_limit();
    ::umask(0);  // modes are the users'
    auto impl = std::make_unique<Impl>();
    impl->on_unmounted = std::move(on_unmounted);
    impl->flatten_from = options.flatten_from;
    impl->flattener = std::make_unique<Background>("overlay-flatten", kFlushPeriod, [] {});
    impl->background = std::make_unique<Background>("overlay", kFlushPeriod, [impl = impl.get()] {
        for (const auto& mounted : impl->all_mounted()) {
            if (mounted->lock) {
                impl->flush(*mounted->view->stack().front());
            }
        }
    });
    std::unique_ptr<OverlayServer> self(new OverlayServer(std::move(impl)));
    Impl& server = *self->impl_;
    if (options.store.empty()) {
        Stack stack;
        for (const std::string& branch : options.lower) {
            IVMM_ASSIGN(auto layer,
                        Layer::open_branch(branch, static_cast<uint32_t>(stack.size() + 1)));
            stack.push_back(std::move(layer));
        }
        if (stack.empty()) {
            return fail_as(ErrorKind::kUsage, "neither an upper nor a lower branch is given");
        }
        server.source = "ivmm";
        IVMM_TRY(server.serve(options.view, {}, std::move(stack), options.mount));
        return self;
    }
    IVMM_ASSIGN(server.store, Store::open_or_create(options.store, options.lower));
    server.source = server.store->directory();
    IVMM_ASSIGN(auto attached, server.store->attach(options.view, true));
    IVMM_TRY(server.serve(options.view, std::move(attached.lock), std::move(attached.stack),
                          options.mount));
    return self;
}

OverlayServer::~OverlayServer() {
    impl_->stopping = true;
    impl_->background->drain();  // it may have posted something to the other
    impl_->flattener.reset();
    std::map<std::string, std::shared_ptr<Mounted>> mounts;
    {
        const std::scoped_lock lock(impl_->mutex);
        mounts.swap(impl_->mounts);
    }
    for (const auto& [name, mounted] : mounts) {
        impl_->retire(mounted);
    }
}

Result<void> OverlayServer::mount(const std::string& view, const MountOptions& options) {
    if (!impl_->store) {
        return fail_as(ErrorKind::kUsage, "a union without an upper has no other views");
    }
    const std::scoped_lock structure(impl_->structure);
    if (impl_->find(view)) {
        return fail("view '{}' is mounted already", view);
    }
    IVMM_ASSIGN(auto attached, impl_->store->attach(view, false));
    return impl_->serve(view, std::move(attached.lock), std::move(attached.stack), options);
}

Result<void> OverlayServer::unmount(const std::string& view, bool force) {
    const std::scoped_lock structure(impl_->structure);
    const auto mounted = impl_->find(view);
    if (!mounted) {
        return fail("view '{}' is not mounted", view);
    }
    if (!force) {
        IVMM_TRY(mounted->session->unmount());
    }
    {
        const std::scoped_lock lock(impl_->mutex);
        impl_->mounts.erase(view);
    }
    impl_->retire(mounted);
    return {};
}

Result<void> OverlayServer::prepare_fork(const std::string& view,
                                         const std::vector<ForkTarget>& targets) {
    IVMM_ASSIGN(const auto mounted, impl_->find_forkable(view));
    IVMM_TRY(impl_->check_targets(targets));
    const std::scoped_lock lock(mounted->fork_mutex);
    return impl_->prepare(*mounted, targets.size() + 1);
}

Result<ForkReport> OverlayServer::fork(const std::string& view,
                                       const std::vector<ForkTarget>& targets) {
    const std::scoped_lock structure(impl_->structure);
    IVMM_ASSIGN(const auto mounted, impl_->find_forkable(view));
    IVMM_TRY(impl_->check_targets(targets));
    std::unique_lock fork_lock(mounted->fork_mutex);
    IVMM_TRY(impl_->prepare(*mounted, targets.size() + 1));
    const Store::Prepared prepared = std::exchange(mounted->prepared, {});
    std::vector<std::string> names;
    names.reserve(targets.size());
    for (const ForkTarget& target : targets) {
        names.push_back(target.view);
    }
    const Stack before = mounted->view->stack();
    const std::vector<std::shared_ptr<Layer>> others(prepared.layers.begin() + 1,
                                                     prepared.layers.end());
    std::vector<Store::ViewLock> locks;
    IVMM_ASSIGN(const auto times,
                mounted->view->fork(prepared.layers.front(), others, [&]() -> Result<void> {
                    IVMM_ASSIGN(locks, impl_->store->commit(*mounted->lock, prepared, names));
                    return {};
                }));
    fork_lock.unlock();
    ++mounted->forks;
    impl_->background->post([impl = impl_.get(), mounted, frozen = before.front()] {
        impl->seal(frozen);
        impl->flatten_if_long(mounted);
    });
    impl_->prepare_later(mounted);

    ForkReport report;
    report.parent_view = view;
    report.frozen_layer = before.front()->number();
    report.new_layer = prepared.layers.front()->number();
    report.drain_us = times.drain_us;
    report.pause_us = times.pause_us;
    for (size_t i = 0; i < targets.size(); ++i) {
        report.target_layers.push_back(others[i]->number());
        if (!targets[i].mount) {
            continue;  // its lock is given back: any server may mount it
        }
        Stack stack = before;
        stack.insert(stack.begin(), others[i]);
        if (auto served = impl_->serve(targets[i].view, std::move(locks[i]), std::move(stack),
                                       *targets[i].mount);
            !served) {
            return annotate(
                std::move(served).error(),
                fmt::format("view '{}' exists, but cannot be mounted", targets[i].view));
        }
    }
    return report;
}

Result<void> OverlayServer::remove_view(const std::string& view) {
    if (!impl_->store) {
        return fail_as(ErrorKind::kUsage, "a union without an upper has no views");
    }
    const std::scoped_lock structure(impl_->structure);
    return impl_->store->remove_view(view);
}

void OverlayServer::flatten(const std::string& view,
                            std::function<void(Result<FlattenReport>)> done) {
    impl_->flattener->post([impl = impl_.get(), view, done = std::move(done)] {
        if (!impl->store) {
            done(fail_as(ErrorKind::kUsage, "a union without an upper has no layers to flatten"));
        } else if (impl->stopping) {
            done(fail("the server ends"));
        } else {
            done(impl->flatten(view));
        }
    });
}

std::optional<FlattenStatus> OverlayServer::flattening() const {
    const std::scoped_lock lock(impl_->mutex);
    return impl_->flattening;
}

std::vector<MountStatus> OverlayServer::status() const {
    const std::scoped_lock lock(impl_->mutex);
    std::vector<MountStatus> all;
    for (const auto& [name, mounted] : impl_->mounts) {
        const Stack stack = mounted->view->stack();
        all.push_back({.view = name,
                       .mountpoint = mounted->mountpoint,
                       .top_layer = stack.front()->number(),
                       .depth = static_cast<uint32_t>(stack.size()),
                       .inodes = mounted->view->inode_count(),
                       .open_files = mounted->view->open_count(),
                       .forks = mounted->forks,
                       .error = impl_->error});
    }
    return all;
}

std::optional<std::string> OverlayServer::view_at(const std::string& mountpoint) const {
    const std::scoped_lock lock(impl_->mutex);
    const auto at = std::ranges::find_if(
        impl_->mounts, [&](const auto& mount) { return mount.second->mountpoint == mountpoint; });
    return at == impl_->mounts.end() ? std::nullopt : std::optional(at->first);
}

}  // namespace ivmm::storage
