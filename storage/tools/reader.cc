#include "storage/tools/reader.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <vector>

namespace ivmm::storage {
namespace {

std::optional<uint32_t> parse_number(const std::string& text) {
    uint32_t number = 0;
    const char* const end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, number);
    if (parsed.ec != std::errc() || parsed.ptr != end ||
        (number != 0 && number < Manifest::kFirstNumber)) {
        return std::nullopt;
    }
    return number;
}

/// The layers that processes have in use and may not have flushed.
Result<std::set<uint32_t>> layers_in_use(Store& store, const std::vector<Store::ViewInfo>& views) {
    std::set<uint32_t> numbers;
    for (const auto& view : views) {
        if (view.served) {
            IVMM_ASSIGN(const auto stack, store.stack(view.top));
            for (const auto& layer : stack) {
                if (layer->in_store() && !layer->sealed()) {
                    numbers.insert(layer->number());
                }
            }
        }
    }
    return numbers;
}

UniqueFd open_for_reading(At at) {
    return UniqueFd(::openat(at.dir, at.path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
}

std::string describe(const Place& place) {
    return fmt::format("{}: {}{}", place.layer->name(), place.in_links ? "links/" : "/",
                       place.path);
}

}  // namespace

Result<StoredTree> open_tree(Store& store, const std::string& name) {
    const auto views = store.views();
    const auto number = parse_number(name);
    if (!views && !number) {
        return Unexpected{views.error()};
    }
    StoredTree tree;
    const auto view = views ? std::ranges::find(*views, name, &Store::ViewInfo::name)
                            : std::vector<Store::ViewInfo>::const_iterator();
    if (views && view != views->end()) {
        tree.name = fmt::format("view \"{}\"", name);
        IVMM_ASSIGN(tree.stack, store.stack(view->top));
    } else if (number) {
        tree.name = *number == 0 ? "the lower branches" : fmt::format("layer {}", *number);
        IVMM_ASSIGN(tree.stack, store.stack(*number));
    } else {
        return fail("{} has no view \"{}\"; `ivmm overlay ls` shows the views and layers",
                    store.directory(), name);
    }
    // Where damage hides who uses what, anything may be in use.
    const Result<std::set<uint32_t>> in_use =
        views ? layers_in_use(store, *views) : Unexpected{views.error()};
    tree.live = std::ranges::any_of(tree.stack, [&](const auto& layer) {
        return layer->in_store() && !layer->sealed() &&
               (!in_use || in_use->contains(layer->number()));
    });
    return tree;
}

Result<std::shared_ptr<const BlockFile>> open_file(StackSpan stack, const Place& place) {
    std::vector<BlockFile::Part> parts;
    std::shared_ptr<const BlockFile> file;
    for (Place at = place; file == nullptr;) {
        UniqueFd data = open_for_reading(at.at());
        struct stat attributes {};
        if (!data || ::fstat(data.get(), &attributes) != 0) {
            return fail_errno("{}", describe(at));
        }
        if (!S_ISREG(attributes.st_mode)) {
            return fail("{}: is not a regular file", describe(at));
        }
        std::optional<Marks::BlockPart> mark;
        if (at.layer->in_store()) {
            auto read = at.layer->marks().block_part(at.at());
            if (!read) {
                return fail("{}: its mark as a part of a block file cannot be read: {}",
                            describe(at), error_text(read.error().code));
            }
            mark = *std::move(read);
        }
        if (!mark) {
            IVMM_ASSIGN(file, BlockFile::bottom(std::move(data)));
            break;
        }
        UniqueFd map = open_for_reading({at.layer->maps(), mark->map.c_str()});
        if (!map) {
            return fail_errno("{}: cannot open its block map, maps/{}", describe(at), mark->map);
        }
        parts.push_back({std::move(data), std::move(map)});
        stack = below(stack, at.layer);
        const auto found = resolve(stack, mark->lower_path);
        if (!found) {
            return fail("{}: cannot find what is below, {}: {}", describe(at), mark->lower_path,
                        error_text(found.error().code));
        }
        if (!*found) {
            return fail("{}: what is below, {}, is missing", describe(at), mark->lower_path);
        }
        at = (*found)->places.front();
    }
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
        auto opened = BlockFile::open(file, std::move(*part), false);
        if (!opened) {
            return annotate(std::move(opened).error(), describe(place));
        }
        file = *std::move(opened);
    }
    return file;
}

}  // namespace ivmm::storage
