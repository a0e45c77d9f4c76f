#include "storage/layer/census.h"

#include <fcntl.h>
#include <unistd.h>

#include "storage/layer/files.h"

namespace ivmm::storage {

namespace {

/// What the files of views/ say. No layer number comes twice, so whatever is found twice in a row
/// has been so at a moment in between.
Result<void> read_views(const StoreDirs& store, Census& census) {
    const auto read = for_each_entry(
        store.views.get(), [&](const char* name, unsigned char /*type*/) -> PosixResult<void> {
            if (name[0] == '.') {
                return {};
            }
            if (const auto record = read_view_record(store, name)) {
                census.views[name] = record->top;
            } else if (record.error().code != ENOENT) {
                census.damage.push_back(record.error());
            }
            return {};
        });
    if (!read) {
        return store_error(store, "views", read.error());
    }
    return {};
}

Result<void> read_layers(const StoreDirs& store, const std::string& uuid, Census& census) {
    const auto read = for_each_entry(
        store.layers.get(), [&](const char* name, unsigned char /*type*/) -> PosixResult<void> {
            const auto number = layer_number(name);
            if (!number) {
                return {};
            }
            if (const auto manifest = read_manifest(store, uuid, *number)) {
                census.layers[*number] = *manifest;
            } else if (manifest.error().code != ENOENT ||
                       ::faccessat(store.layers.get(), name, F_OK, 0) == 0) {
                census.damage.push_back(manifest.error());
            }
            return {};
        });
    if (!read) {
        return store_error(store, "layers", read.error());
    }
    return {};
}

/// A view that needs a layer which is not there is damage, unless somebody has just removed it.
void find_missing_layers(const StoreDirs& store, Census& census) {
    for (const auto& [name, top] : census.views) {
        const auto chain = census.chain(top);
        const auto present = read_view_record(store, name);
        if (!chain && present && present->top == top) {
            census.damage.push_back(
                annotate(chain.error(), fmt::format("{}/views/{}", store.path, name)).error);
        }
    }
}

Result<Census> take_once(const StoreDirs& store, const std::string& uuid) {
    Census census;
    IVMM_TRY(read_views(store, census));
    while (true) {
        Census again;
        IVMM_TRY(read_views(store, again));
        if (again.views == census.views) {
            break;
        }
        census = std::move(again);
    }
    // A layer is there before a view names it.
    IVMM_TRY(read_layers(store, uuid, census));
    find_missing_layers(store, census);
    return census;
}

}  // namespace

Result<Census> Census::take(const StoreDirs& store, const std::string& uuid) {
    auto census = take_once(store, uuid);
    // A flatten may have taken layers away that others had as parents when they were looked at.
    return census && !census->damage.empty() ? take_once(store, uuid) : census;
}

std::set<uint32_t> Census::needed(const std::string& without) const {
    std::set<uint32_t> numbers;
    for (const auto& [name, top] : views) {
        if (name == without) {
            continue;
        }
        for (uint32_t number = top; number != 0 && numbers.insert(number).second;) {
            const auto layer = layers.find(number);
            number = layer == layers.end() ? 0 : layer->second.parent;
        }
    }
    return numbers;
}

Result<std::vector<uint32_t>> Census::chain(uint32_t top) const {
    std::vector<uint32_t> numbers;
    for (uint32_t number = top; number != 0;) {
        const auto layer = layers.find(number);
        if (layer == layers.end()) {
            return fail("layer {} is missing or damaged", number);
        }
        numbers.push_back(number);
        number = layer->second.parent;
    }
    return numbers;
}

std::vector<uint32_t> Census::children(uint32_t parent) const {
    std::vector<uint32_t> numbers;
    for (const auto& [number, layer] : layers) {
        if (layer.parent == parent) {
            numbers.push_back(number);
        }
    }
    return numbers;
}

bool Census::writable_by(const std::string& view) const {
    return damage.empty() && !needed(view).contains(views.at(view));
}

}  // namespace ivmm::storage
