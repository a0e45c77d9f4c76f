#include "storage/layer/layer_directories.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>

#include "storage/layer/census.h"
#include "storage/layer/files.h"
#include "storage/layer/layer.h"

namespace ivmm::storage {

namespace {

std::string new_name(uint32_t number) {
    return fmt::format(".{}.new", number);
}
PosixResult<void> make_directory(int dir, const char* name, mode_t mode) {
    if (::mkdirat(dir, name, mode) != 0 || ::fchmodat(dir, name, mode, 0) != 0) {
        return last_posix_error();  // the umask does not count
    }
    IVMM_ASSIGN(const auto made, open_directory(dir, name));
    return sync_fd(made.get());
}

PosixResult<void> fill_layer(int directory, const Manifest& manifest) {
    IVMM_TRY(make_directory(directory, "tree", 0755));
    for (const char* name : {"maps", "links", "work"}) {
        IVMM_TRY(make_directory(directory, name, 0700));
    }
    IVMM_TRY(write_small_file(directory, "MANIFEST", encode_manifest(manifest)));
    return sync_fd(directory);
}

PosixResult<void> make_hidden_layer(const StoreDirs& store, const std::string& name,
                                    const Manifest& manifest) {
    IVMM_TRY(make_directory(store.layers.get(), name.c_str(), 0700));
    IVMM_ASSIGN(const auto directory, open_directory(store.layers.get(), name.c_str()));
    return fill_layer(directory.get(), manifest);
}

PosixResult<void> make_layer(const StoreDirs& store, const Manifest& manifest) {
    const auto name = new_name(manifest.number);
    IVMM_TRY(make_hidden_layer(store, name, manifest));
    if (::renameat(store.layers.get(), name.c_str(), store.layers.get(),
                   std::to_string(manifest.number).c_str()) != 0) {
        return last_posix_error();
    }
    return {};
}

/// Deletes the entries of a directory of the store that `is_garbage` says are.
Result<void> delete_entries(const StoreDirs& store, int dir, const std::string& name,
                            const std::function<bool(const std::string&)>& is_garbage) {
    const auto done =
        for_each_entry(dir, [&](const char* entry, unsigned char /*type*/) -> PosixResult<void> {
            return is_garbage(entry) ? remove_tree(dir, entry) : PosixResult<void>();
        });
    if (!done) {
        return store_error(store, name, done.error());
    }
    return {};
}

}  // namespace

Result<std::vector<uint32_t>> make_layers(const StoreDirs& store, const std::string& uuid,
                                          uint32_t parent, uint32_t count) {
    IVMM_ASSIGN(const auto first, reserve_numbers(store, count));
    std::vector<uint32_t> numbers;
    PosixResult<void> made;
    for (uint32_t i = 0; i < count && made; ++i) {
        numbers.push_back(first + i);
        made = make_layer(store, {.uuid = uuid, .number = first + i, .parent = parent});
    }
    if (made) {
        made = sync_fd(store.layers.get());
    }
    if (!made) {
        for (const auto number : numbers) {
            std::ignore = remove_tree(store.layers.get(), new_name(number).c_str());
        }
        std::ignore = discard_layers(store, numbers);
        std::ignore = delete_discarded(store, numbers);
        return annotate(store_error(store, "layers", made.error()).error,
                        fmt::format("cannot make layer {}", numbers.back()));
    }
    return numbers;
}

Result<std::string> make_replacement(const StoreDirs& store, const Manifest& manifest) {
    const auto name = fmt::format(".{}.{}.new", manifest.number, Layer::unique_name());
    if (const auto made = make_hidden_layer(store, name, manifest); !made) {
        std::ignore = remove_tree(store.layers.get(), name.c_str());
        return store_error(store, "layers/" + name, made.error());
    }
    return name;
}

Result<void> exchange_layer(const StoreDirs& store, const std::string& name, uint32_t number) {
    const int layers = store.layers.get();
    if (::renameat2(layers, name.c_str(), layers, std::to_string(number).c_str(),
                    RENAME_EXCHANGE) != 0) {
        return store_error(store, fmt::format("layers/{}", number), {errno});
    }
    if (const auto synced = sync_fd(layers); !synced) {
        return store_error(store, "layers", synced.error());
    }
    return {};
}

Result<void> delete_hidden(const StoreDirs& store, const std::string& name) {
    const auto tree = open_directory(store.layers.get(), (name + "/tree").c_str());
    if (tree && ::flock(tree->get(), LOCK_EX | LOCK_NB) != 0) {
        return {};
    }
    if (const auto removed = remove_tree(store.layers.get(), name.c_str()); !removed) {
        return store_error(store, "layers/" + name, removed.error());
    }
    return {};
}

std::string discarded_name(uint32_t number) {
    return fmt::format(".{}.dead", number);
}

Result<void> discard_layers(const StoreDirs& store, const std::vector<uint32_t>& numbers) {
    for (const auto number : numbers) {
        const auto spare = spare_view_name(number);
        if (::unlinkat(store.views.get(), spare.c_str(), 0) != 0 && errno != ENOENT) {
            return store_error(store, "views/" + spare, {errno});
        }
        const auto name = std::to_string(number);
        if (::renameat(store.layers.get(), name.c_str(), store.layers.get(),
                       discarded_name(number).c_str()) != 0 &&
            errno != ENOENT) {
            return store_error(store, "layers/" + name, {errno});
        }
    }
    return {};
}

Result<void> delete_discarded(const StoreDirs& store, const std::vector<uint32_t>& numbers) {
    for (const auto number : numbers) {
        const auto name = discarded_name(number);
        if (const auto removed = remove_tree(store.layers.get(), name.c_str()); !removed) {
            return store_error(store, "layers/" + name, removed.error());
        }
    }
    return {};
}

Result<void> collect_garbage(const StoreDirs& store, const std::string& uuid) {
    IVMM_ASSIGN(const auto census, Census::take(store, uuid));
    if (!census.damage.empty()) {
        return fail("{}", census.damage.front().message);
    }
    const auto needed = census.needed();
    std::vector<uint32_t> unneeded;
    // Children before their parents, so that no layer is ever without its parent.
    for (auto layer = census.layers.rbegin(); layer != census.layers.rend(); ++layer) {
        if (!needed.contains(layer->first)) {
            unneeded.push_back(layer->first);
        }
    }
    IVMM_TRY(discard_layers(store, unneeded));
    const auto hidden = [](const std::string& name) { return name.starts_with('.'); };
    IVMM_TRY(delete_entries(store, store.views.get(), "views", hidden));
    IVMM_TRY(delete_entries(store, store.layers.get(), "layers", hidden));
    return delete_entries(store, store.locks.get(), "locks",
                          [&](const std::string& name) { return !census.views.contains(name); });
}

}  // namespace ivmm::storage
