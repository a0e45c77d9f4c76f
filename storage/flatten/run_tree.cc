#include "storage/flatten/run_tree.h"

#include <algorithm>

#include "storage/union/object.h"

namespace ivmm::storage {

bool RunTree::in_run(const Layer* layer) const {
    return std::ranges::find(run_, layer, &std::shared_ptr<Layer>::get) != run_.end();
}

PosixResult<RunTree::Node> RunTree::root_of(StackSpan stack) const {
    Node root;
    for (auto& place : root_places(stack)) {
        if (in_run(place.layer)) {
            root.parts.push_back(std::move(place));
        } else {
            if (!root.below) {
                root.below.emplace();
            }
            root.below->places.push_back(std::move(place));
        }
    }
    if (!root.exists()) {
        return root;
    }
    const Place& top = root.parts.empty() ? root.below->places.front() : root.parts.front();
    IVMM_ASSIGN(root.attributes, stat_object(top.at()));
    return root;
}

/// What the layers below the run add to what a name stands for.
PosixResult<void> RunTree::add_below(StackSpan stack, const Below& directory, std::string_view name,
                                     Node& node) const {
    IVMM_ASSIGN(auto found, storage::lookup(below_, directory.places, name));
    if (!found || (!node.parts.empty() && !found->is_directory())) {
        return {};
    }
    if (!found->is_directory()) {
        IVMM_TRY(follow_links(stack, &*found));
    }
    if (node.parts.empty()) {
        node.attributes = found->attributes;
    }
    if (in_run(found->places.front().layer)) {
        node.parts = std::move(found->places);  // the run has copied it up by another name
    } else {
        node.below = Below{fmt::format("{}/{}", directory.path, name), std::move(found->places)};
    }
    return {};
}

// As storage::lookup(), whose rules these are.
PosixResult<RunTree::Node> RunTree::lookup_in(StackSpan stack, const Node& directory,
                                              std::string_view name) const {
    Node node;
    std::string wanted(name);
    for (const Place& part : directory.parts) {
        Place place{part.layer, join_path(part.path, wanted), false};
        const auto attributes = stat_object(place.at());
        if (!attributes) {
            if (attributes.error().code == ENOENT || attributes.error().code == ENOTDIR) {
                continue;
            }
            return UnexpectedError{attributes.error()};
        }
        const bool first = node.parts.empty();
        if (is_whiteout(*attributes) || (!first && !S_ISDIR(attributes->st_mode))) {
            return node;
        }
        if (first) {
            node.attributes = *attributes;
        }
        node.parts.push_back(place);
        if (!S_ISDIR(attributes->st_mode)) {
            Found found{*attributes, {place}};
            IVMM_TRY(follow_links(stack, &found));
            node.attributes = found.attributes;
            node.parts = std::move(found.places);
            return node;
        }
        const Marks& marks = part.layer->marks();
        if (marks.is_opaque(place.at())) {
            return node;
        }
        IVMM_ASSIGN(const auto redirect, marks.redirect(place.at()));
        if (redirect && redirect->starts_with('/')) {
            IVMM_ASSIGN(auto target, resolve(*part.layer, *redirect));
            if (target.exists() && target.is_directory()) {
                std::ranges::move(target.parts, std::back_inserter(node.parts));
                node.below = std::move(target.below);
            }
            return node;
        }
        wanted = redirect.value_or(wanted);
    }
    if (directory.below) {
        IVMM_TRY(add_below(stack, *directory.below, wanted, node));
    }
    return node;
}

PosixResult<RunTree::Node> RunTree::resolve_in(StackSpan stack, std::string_view path) const {
    IVMM_ASSIGN(Node node, root_of(stack));
    while (!path.empty()) {
        const size_t slash = path.find('/');
        const std::string_view name = path.substr(0, slash);
        path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
        if (name.empty()) {
            continue;
        }
        if (!node.is_directory()) {
            return Node();
        }
        IVMM_ASSIGN(node, lookup_in(stack, node, name));
        if (!node.exists()) {
            return node;
        }
    }
    return node;
}

PosixResult<bool> RunTree::shows_from_below(const Node& directory, std::string_view name) const {
    if (!directory.below) {
        return false;
    }
    IVMM_ASSIGN(const auto found, storage::lookup(below_, directory.below->places, name));
    return found.has_value();
}

}  // namespace ivmm::storage
