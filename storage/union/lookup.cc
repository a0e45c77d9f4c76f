#include "storage/union/lookup.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

namespace ivmm::storage {
namespace {

/// No chain of redirects is longer than the stack; deeper paths than these are not followed.
constexpr size_t kMaxComponents = 2048;

enum class Presence { kAbsent, kWhiteout, kPresent };

PosixResult<Presence> examine(At at, struct stat* attributes) {
    const int flags = AT_SYMLINK_NOFOLLOW | (at.path[0] == '\0' ? AT_EMPTY_PATH : 0);
    if (::fstatat(at.dir, at.path, attributes, flags) != 0) {
        if (errno == ENOENT || errno == ENOTDIR) {
            return Presence::kAbsent;
        }
        return last_posix_error();
    }
    return is_whiteout(*attributes) ? Presence::kWhiteout : Presence::kPresent;
}

}  // namespace

At Place::at() const {
    return {in_links ? layer->links() : layer->tree(), path.c_str()};
}

std::string join_path(std::string_view directory, std::string_view name) {
    std::string path(directory);
    if (!path.empty() && !name.empty()) {
        path += '/';
    }
    path += name;
    return path;
}

bool is_whiteout(const struct stat& attributes) {
    return S_ISCHR(attributes.st_mode) && attributes.st_rdev == 0;
}

std::vector<Place> root_places(StackSpan stack) {
    std::vector<Place> places;
    places.reserve(stack.size());
    for (const auto& layer : stack) {
        places.push_back({layer.get(), "", false});
    }
    return places;
}

StackSpan below(StackSpan stack, const Layer* layer) {
    const auto at = std::ranges::find(stack, layer, &std::shared_ptr<Layer>::get);
    return at == stack.end() ? StackSpan() : StackSpan(std::next(at), stack.end());
}

bool is_hard_linked(const Place& place, const struct stat& attributes) {
    // With one name in its layer, it may have others below.
    return !S_ISDIR(attributes.st_mode) && (attributes.st_nlink > 1 || place.in_links);
}

PosixResult<LinkId> link_id(const Layer& layer, At file, const struct stat& attributes) {
    if (layer.in_store()) {
        IVMM_ASSIGN(const auto id, layer.marks().link_id(file));
        if (id) {
            return *id;
        }
    }
    return LinkId{layer.number(), attributes.st_ino};
}

PosixResult<void> follow_links(StackSpan stack, Found* found) {
    bool moved = true;
    while (moved && is_hard_linked(found->places.front(), found->attributes)) {
        moved = false;
        const Place& place = found->places.front();
        std::string key;
        for (const auto& layer : stack) {
            if (layer.get() == place.layer) {
                break;
            }
            if (!layer->has_links()) {
                continue;
            }
            if (key.empty()) {
                IVMM_ASSIGN(const LinkId id, link_id(*place.layer, place.at(), found->attributes));
                key = link_key(id);
            }
            struct stat attributes {};
            IVMM_ASSIGN(const Presence presence,
                        examine({layer->links(), key.c_str()}, &attributes));
            if (presence == Presence::kPresent) {
                found->attributes = attributes;
                found->places = {{layer.get(), key, true}};
                moved = true;
                break;
            }
        }
    }
    return {};
}

uint64_t union_inode(const Layer& layer, uint64_t inode) {
    constexpr unsigned kBits = 48;
    return uint64_t{layer.number()} << kBits | ((inode ^ inode >> kBits) & ((1ULL << kBits) - 1));
}

PosixResult<std::optional<Found>> lookup(StackSpan stack, std::span<const Place> directory,
                                         std::string_view name) {
    Found found;
    std::string wanted(name);
    for (const Place& part : directory) {
        Place place{part.layer, join_path(part.path, wanted), false};
        struct stat attributes {};
        IVMM_ASSIGN(const Presence presence, examine(place.at(), &attributes));
        if (presence == Presence::kAbsent) {
            continue;
        }
        const bool directory_here = presence == Presence::kPresent && S_ISDIR(attributes.st_mode);
        if (presence == Presence::kWhiteout || (!directory_here && !found.places.empty())) {
            break;
        }
        if (found.places.empty()) {
            found.attributes = attributes;
        }
        found.places.push_back(place);
        if (!directory_here) {
            IVMM_TRY(follow_links(stack, &found));
            break;
        }
        if (part.layer == stack.back().get()) {
            break;
        }
        const Marks& marks = part.layer->marks();
        if (marks.is_opaque(place.at())) {
            break;
        }
        IVMM_ASSIGN(const auto redirect, marks.redirect(place.at()));
        if (!redirect) {
            continue;
        }
        if (!redirect->starts_with('/')) {
            wanted = *redirect;
            continue;
        }
        IVMM_ASSIGN(auto target, resolve(below(stack, part.layer), *redirect));
        if (target && target->is_directory()) {
            found.places.insert(found.places.end(), target->places.begin(), target->places.end());
        }
        break;
    }
    if (found.places.empty()) {
        return std::optional<Found>();
    }
    return std::optional<Found>(std::move(found));
}

PosixResult<std::optional<Found>> resolve(StackSpan stack, std::string_view path) {
    Found found;
    found.places = root_places(stack);
    if (found.places.empty()) {
        return std::optional<Found>();
    }
    IVMM_TRY(examine(found.places.front().at(), &found.attributes));
    size_t components = 0;
    while (!path.empty()) {
        const size_t slash = path.find('/');
        const std::string_view name = path.substr(0, slash);
        path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
        if (name.empty()) {
            continue;
        }
        if (++components > kMaxComponents || name == "." || name == "..") {
            return posix_error(EIO);
        }
        if (!found.is_directory()) {
            return std::optional<Found>();
        }
        IVMM_ASSIGN(auto next, lookup(stack, found.places, name));
        if (!next) {
            return std::optional<Found>();
        }
        found = *std::move(next);
    }
    return std::optional<Found>(std::move(found));
}

}  // namespace ivmm::storage
