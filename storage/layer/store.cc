#include "storage/layer/store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <span>

#include "base/log.h"
#include "storage/layer/census.h"
#include "storage/layer/files.h"
#include "storage/layer/layer_directories.h"
#include "storage/layer/store_impl.h"
#include "storage/layer/view_lock.h"

namespace ivmm::storage {

namespace {

bool is_view_name(const std::string& name) {
    return !name.empty() && name.size() <= 64 && name.front() != '.' &&
           name.find_first_not_of(
               "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
               "0123456789._-") == std::string::npos;
}

Result<void> check_view_name(const std::string& name) {
    if (!is_view_name(name)) {
        return fail_as(ErrorKind::kUsage,
                       "\"{}\" is no name for a view: up to 64 letters, digits, '.', '_' and '-', "
                       "not starting with '.'",
                       name);
    }
    return {};
}

}  // namespace

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() = default;

Result<std::shared_ptr<Store>> Store::open_or_create(const std::string& directory,
                                                     const std::vector<std::string>& lower) {
    IVMM_ASSIGN(auto opened, open_store(directory, lower, /*create=*/true));
    return std::shared_ptr<Store>(new Store(std::make_unique<Impl>(std::move(opened))));
}

Result<std::shared_ptr<Store>> Store::open(const std::string& directory) {
    IVMM_ASSIGN(auto opened, open_store(directory, {}, /*create=*/false));
    return std::shared_ptr<Store>(new Store(std::make_unique<Impl>(std::move(opened))));
}

const std::string& Store::directory() const {
    return impl_->dirs.path;
}
const std::string& Store::uuid() const {
    return impl_->record.uuid;
}
MarkStyle Store::mark_style() const {
    return impl_->record.style;
}
const std::vector<std::shared_ptr<Layer>>& Store::lower() const {
    return impl_->lower;
}

Result<std::vector<Store::ViewInfo>> Store::views() const {
    const auto& dirs = impl_->dirs;
    std::vector<ViewInfo> views;
    Result<void> outcome;
    const auto listed = for_each_entry(
        dirs.views.get(), [&](const char* name, unsigned char /*type*/) -> PosixResult<void> {
            if (name[0] == '.' || !outcome) {
                return {};
            }
            const auto record = read_view_record(dirs, name);
            if (!record) {
                if (record.error().code != ENOENT) {
                    outcome = Unexpected{record.error()};
                }
                return {};
            }
            IVMM_ASSIGN(const auto served, is_view_locked(dirs.locks.get(), name));
            views.push_back({name, record->top, served});
            return {};
        });
    if (!listed) {
        return store_error(dirs, "views", listed.error());
    }
    IVMM_TRY(std::move(outcome));
    std::ranges::sort(views, {}, &ViewInfo::name);
    return views;
}

Result<std::vector<Manifest>> Store::manifests() const {
    IVMM_ASSIGN(const auto census, Census::take(impl_->dirs, impl_->record.uuid));
    if (!census.damage.empty()) {
        return Unexpected{census.damage.front()};
    }
    std::vector<Manifest> manifests;
    for (const auto& [number, manifest] : census.layers) {
        manifests.push_back(manifest);
    }
    return manifests;
}

std::shared_ptr<Layer> Store::Impl::find_opened(uint32_t number) {
    const std::scoped_lock lock(mutex);
    const auto found = opened.find(number);
    return found == opened.end() ? nullptr : found->second.lock();
}

Result<std::shared_ptr<Layer>> Store::Impl::open_layer(const std::string& name, uint32_t number,
                                                       bool writable) {
    auto directory = open_directory(dirs.layers.get(), name.c_str());
    if (!directory) {
        return store_error(dirs, "layers/" + name + "/MANIFEST", directory.error());
    }
    // Of this directory, whatever is at its name meanwhile.
    IVMM_ASSIGN(const auto manifest, read_manifest(dirs, record.uuid, number, directory->get()));
    auto layer = Layer::open(*std::move(directory), manifest, record.style, writable);
    if (!layer) {
        return annotate(std::move(layer).error(), dirs.path);
    }
    return layer;
}

Result<std::shared_ptr<Layer>> Store::Impl::open_layer(uint32_t number, bool writable) {
    IVMM_ASSIGN(auto layer, open_layer(std::to_string(number), number, writable));
    const std::scoped_lock lock(mutex);
    std::erase_if(opened, [](const auto& item) { return item.second.expired(); });
    opened[number] = layer;
    return layer;
}

Result<void> Store::Impl::seal(const std::string& name, uint32_t number) {
    if (sync_error == 0 && (::syncfs(dirs.root.get()) != 0 || ::fsync(dirs.views.get()) != 0)) {
        sync_error = errno;
    }
    if (const int error = sync_error; error != 0) {
        return store_error(dirs, "layers/" + name + " is not sealed", {error});
    }
    const auto directory = open_directory(dirs.layers.get(), name.c_str());
    if (!directory) {
        return store_error(dirs, "layers/" + name, directory.error());
    }
    IVMM_ASSIGN(auto manifest, read_manifest(dirs, record.uuid, number, directory->get()));
    manifest.state = Manifest::State::kSealed;
    ++manifest.generation;
    const auto written =
        replace_small_file(directory->get(), "MANIFEST", encode_manifest(manifest));
    if (!written) {
        return store_error(dirs, "layers/" + name + "/MANIFEST", written.error());
    }
    return {};
}

/// Seals a layer that a process which is no more has frozen. What it had not flushed is lost.
Result<void> Store::Impl::finish_seal(Layer& layer) {
    IVMM_TRY(layer.claim());
    layer.freeze();
    IVMM_TRY(seal(std::to_string(layer.number()), layer.number()));
    layer.set_sealed({});
    return {};
}

Result<std::vector<std::shared_ptr<Layer>>> Store::Impl::stack(uint32_t top, bool to_be_served) {
    std::vector<std::shared_ptr<Layer>> layers;
    for (uint32_t number = top; number != 0;) {
        auto layer = find_opened(number);
        const bool was_opened = layer != nullptr;
        if (!was_opened) {
            IVMM_ASSIGN(layer, open_layer(number, to_be_served));
        }
        if (to_be_served && number == top && was_opened) {
            IVMM_TRY(layer->claim());
        }
        // One that this process has frozen is sealed by whoever froze it.
        if (to_be_served && number != top && !layer->frozen()) {
            IVMM_TRY(finish_seal(*layer));
        }
        number = layer->parent();
        layers.push_back(std::move(layer));
    }
    layers.insert(layers.end(), lower.begin(), lower.end());
    return layers;
}

Result<std::vector<std::shared_ptr<Layer>>> Store::stack(uint32_t top) {
    constexpr int kTries = 3;
    const std::scoped_lock lock(impl_->slow);
    auto stack = impl_->stack(top, false);
    // Layers may be flattened by another process while they are opened.
    for (int tries = 1; !stack && tries < kTries; ++tries) {
        stack = impl_->stack(top, false);
    }
    return stack;
}

Result<uint32_t> Store::Impl::move_to_fresh_layer(const std::string& view, uint32_t parent) {
    IVMM_ASSIGN(const auto numbers, make_layers(dirs, record.uuid, parent, 1));
    if (const auto written =
            replace_small_file(dirs.views.get(), view, encode_view_record({numbers.front()}));
        !written) {
        return store_error(dirs, "views/" + view, written.error());
    }
    return numbers.front();
}

Result<void> Store::Impl::remove_layers(const std::vector<uint32_t>& numbers) {
    IVMM_TRY(discard_layers(dirs, numbers));
    return delete_discarded(dirs, numbers);
}

/// Removes the unused layers over the top of a view whose lock is held: they are nobody's. They
/// are not used, even if they look empty: a power failure can leave a view behind that has been
/// written since a fork which never reached the medium.
Result<void> Store::Impl::drop_spares(const Census& census, uint32_t top) {
    const auto needed = census.needed();
    auto unneeded = census.children(top);
    std::erase_if(unneeded, [&](uint32_t number) { return needed.contains(number); });
    const bool shared = std::ranges::count_if(
                            census.views, [&](const auto& view) { return view.second == top; }) > 1;
    if (shared || !census.damage.empty()) {
        return {};
    }
    {
        const std::scoped_lock lock(mutex);
        spares.erase(top);
    }
    return remove_layers(unneeded);
}

/// The top of a view whose lock is held, which may be written.
Result<uint32_t> Store::Impl::writable_top(const std::string& view, bool create) {
    const auto view_record = read_view_record(dirs, view);
    if (!view_record) {
        if (view_record.error().code != ENOENT) {
            return Unexpected{view_record.error()};
        }
        if (!create) {
            return fail("{} has no view \"{}\"", dirs.path, view);
        }
        return move_to_fresh_layer(view, 0);
    }
    const uint32_t top = view_record->top;
    IVMM_ASSIGN(const auto manifest, read_manifest(dirs, record.uuid, top));
    IVMM_ASSIGN(const auto census, Census::take(dirs, record.uuid));
    for (const auto& error : census.damage) {
        log::warning("{}", error.message);
    }
    IVMM_TRY(drop_spares(census, top));
    const auto layer = find_opened(top);
    if (manifest.state == Manifest::State::kOpen && census.writable_by(view) &&
        (layer == nullptr || !layer->frozen())) {
        return top;
    }
    return move_to_fresh_layer(view, top);
}

Result<Store::Attached> Store::attach(const std::string& view, bool create) {
    IVMM_TRY(check_view_name(view));
    const std::scoped_lock slow(impl_->slow);
    auto& dirs = impl_->dirs;
    IVMM_ASSIGN(auto lock, take_view_lock(dirs.locks.get(), view));
    const auto top = impl_->writable_top(view, create);
    if (!top) {
        if (::faccessat(dirs.views.get(), view.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) != 0) {
            std::ignore = delete_view_lock(dirs.locks.get(), view);
        }
        return Unexpected{top.error()};
    }
    IVMM_ASSIGN(auto stack, impl_->stack(*top, true));
    return Attached{ViewLock(view, *top, std::move(lock)), std::move(stack)};
}

/// Makes spare layers over a parent until there are `count` of them.
Result<void> Store::Impl::add_spares(uint32_t parent, std::vector<std::shared_ptr<Layer>>& present,
                                     size_t count) {
    if (present.size() >= count) {
        return {};
    }
    IVMM_ASSIGN(const auto numbers, make_layers(dirs, record.uuid, parent,
                                                static_cast<uint32_t>(count - present.size())));
    auto added = [&]() -> Result<void> {
        for (const auto number : numbers) {
            const auto name = spare_view_name(number);
            if (const auto written =
                    write_small_file(dirs.views.get(), name.c_str(), encode_view_record({number}));
                !written) {
                return store_error(dirs, "views/" + name, written.error());
            }
            IVMM_ASSIGN(auto layer, open_layer(number, true));
            present.push_back(std::move(layer));
        }
        if (const auto synced = sync_fd(dirs.views.get()); !synced) {
            return store_error(dirs, "views", synced.error());
        }
        return {};
    }();
    if (!added) {
        std::ignore = remove_layers(numbers);
    }
    return added;
}

Result<Store::Prepared> Store::prepare(const ViewLock& view, size_t count) {
    const std::scoped_lock slow(impl_->slow);
    const uint32_t parent = view.top_;
    std::vector<uint32_t> useless;
    std::vector<std::string> replaced;
    std::vector<std::shared_ptr<Layer>> spares;
    {
        const std::scoped_lock lock(impl_->mutex);
        useless.swap(impl_->useless);
        replaced.swap(impl_->replaced);
        spares = impl_->spares[parent];
    }
    for (const auto& name : replaced) {
        if (::unlinkat(impl_->dirs.views.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
            return store_error(impl_->dirs, "views/" + name, {errno});
        }
    }
    IVMM_TRY(impl_->remove_layers(useless));
    IVMM_TRY(impl_->add_spares(parent, spares, count));
    {
        const std::scoped_lock lock(impl_->mutex);
        impl_->spares[parent] = spares;
    }
    spares.resize(count);
    return Prepared{parent, std::move(spares)};
}

Result<std::vector<Store::ViewLock>> Store::commit(ViewLock& view, const Prepared& prepared,
                                                   const std::vector<std::string>& names) {
    if (prepared.parent != view.top_ || prepared.layers.size() < names.size() + 1) {
        return fail("view \"{}\" has moved on, or too few layers are prepared", view.name());
    }
    const auto& dirs = impl_->dirs;
    const int views = dirs.views.get();
    std::vector<ViewLock> locks;
    const auto prepared_name = [&](size_t i) {
        return spare_view_name(prepared.layers[i]->number());
    };
    size_t made = 0;
    auto outcome = [&]() -> Result<void> {
        for (size_t i = 0; i < names.size(); ++i) {
            IVMM_TRY(check_new_name(names[i]));
            IVMM_ASSIGN(auto lock, take_view_lock(dirs.locks.get(), names[i]));
            locks.push_back(ViewLock(names[i], prepared.layers[i + 1]->number(), std::move(lock)));
        }
        for (; made < names.size(); ++made) {
            if (::renameat2(views, prepared_name(made + 1).c_str(), views, names[made].c_str(),
                            RENAME_NOREPLACE) != 0) {
                return store_error(dirs, "views/" + names[made], {errno});
            }
        }
        // The last step, so it need not be undone. With a crash before it, this view's top has
        // children in use. An exchange, because freeing the former file can take milliseconds.
        if (::renameat2(views, prepared_name(0).c_str(), views, view.name().c_str(),
                        RENAME_EXCHANGE) != 0) {
            return store_error(dirs, "views/" + view.name(), {errno});
        }
        return {};
    }();
    if (!outcome) {
        while (made > 0) {
            --made;
            if (::renameat(views, names[made].c_str(), views, prepared_name(made + 1).c_str()) !=
                0) {
                log::error("{}/views/{} is left over from a fork that failed; remove the view: {}",
                           dirs.path, names[made], error_text(errno));
            }
        }
        for (const auto& lock : locks) {
            std::ignore = delete_view_lock(dirs.locks.get(), lock.name());
        }
        return Unexpected{std::move(outcome).error()};
    }
    view.top_ = prepared.layers.front()->number();
    if (const auto former = impl_->find_opened(prepared.parent)) {
        former->freeze();
    }
    const std::scoped_lock lock(impl_->mutex);
    impl_->replaced.push_back(prepared_name(0));
    for (const auto& spare : impl_->spares[prepared.parent]) {
        const auto used = std::span(prepared.layers).first(names.size() + 1);
        if (std::ranges::find(used, spare) == used.end()) {
            impl_->useless.push_back(spare->number());
        }
    }
    impl_->spares.erase(prepared.parent);
    return locks;
}

Result<void> Store::check_new_name(const std::string& name) const {
    IVMM_TRY(check_view_name(name));
    if (::faccessat(impl_->dirs.views.get(), name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        return fail("there is a view \"{}\" already", name);
    }
    return {};
}

Result<void> Store::seal(const Layer& layer) {
    return impl_->seal(std::to_string(layer.number()), layer.number());
}

Result<void> Store::remove_view(const std::string& name) {
    IVMM_TRY(check_view_name(name));
    auto& dirs = impl_->dirs;
    std::vector<uint32_t> unneeded;
    {
        const std::scoped_lock slow(impl_->slow);
        IVMM_ASSIGN(const auto lock, take_view_lock(dirs.locks.get(), name));
        const auto record = read_view_record(dirs, name);
        if (::unlinkat(dirs.views.get(), name.c_str(), 0) != 0) {
            const int error = errno;
            if (error == ENOENT) {
                std::ignore = delete_view_lock(dirs.locks.get(), name);
                return fail("{} has no view \"{}\"", dirs.path, name);
            }
            return store_error(dirs, "views/" + name, {error});
        }
        if (const auto synced = sync_fd(dirs.views.get()); !synced) {
            return store_error(dirs, "views", synced.error());
        }
        std::ignore = delete_view_lock(dirs.locks.get(), name);
        IVMM_ASSIGN(const auto census, Census::take(dirs, impl_->record.uuid));
        if (!record || !census.damage.empty()) {
            return {};  // the layers wait for an open() of a store without damage
        }
        IVMM_ASSIGN(const auto chain, census.chain(record->top));
        const auto needed = census.needed();
        if (!needed.contains(record->top)) {
            unneeded = census.children(record->top);  // made for forks of this view
            const std::scoped_lock members(impl_->mutex);
            impl_->spares.erase(record->top);
        }
        std::ranges::copy_if(chain, std::back_inserter(unneeded),
                             [&](uint32_t number) { return !needed.contains(number); });
        IVMM_TRY(discard_layers(dirs, unneeded));
    }
    return delete_discarded(dirs, unneeded);
}

}  // namespace ivmm::storage
