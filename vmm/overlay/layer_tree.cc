#include "vmm/overlay/layer_tree.h"

#include <map>
#include <set>
#include <utility>

namespace ivmm::overlay {
namespace {

using storage::Manifest;

class Arrangement {
 public:
    Arrangement(const std::vector<Manifest>& manifests,
                const std::vector<storage::Store::ViewInfo>& views) {
        std::set<uint32_t> known;
        for (const auto& manifest : manifests) {
            known.insert(manifest.number);
        }
        for (const auto& manifest : manifests) {
            children_[known.contains(manifest.parent) ? manifest.parent : 0].push_back(&manifest);
        }
        for (const auto& view : views) {
            views_[view.top].push_back(view.name);
        }
    }

    std::vector<LayerRow> rows() && {
        // An explicit stack: chains are as long as people have patience.
        std::vector<std::pair<const Manifest*, uint32_t>> todo;
        push_children(0, 0, todo);
        while (!todo.empty()) {
            const auto [manifest, indent] = todo.back();
            todo.pop_back();
            rows_.push_back({manifest->number, manifest->parent, state(*manifest),
                             views_[manifest->number], indent});
            push_children(manifest->number, indent, todo);
        }
        return std::move(rows_);
    }

 private:
    void push_children(uint32_t parent, uint32_t indent,
                       std::vector<std::pair<const Manifest*, uint32_t>>& todo) {
        const auto& children = children_[parent];
        const uint32_t step = children.size() > 1 && parent != 0 ? 1 : 0;
        for (auto child = children.rbegin(); child != children.rend(); ++child) {
            todo.emplace_back(*child, indent + step);
        }
    }

    std::string state(const Manifest& manifest) {
        if (manifest.state == Manifest::State::kSealed) {
            return "sealed";
        }
        if (!views_[manifest.number].empty()) {
            return "open";
        }
        return children_[manifest.number].empty() ? "spare" : "frozen";
    }

    std::map<uint32_t, std::vector<const Manifest*>> children_;
    std::map<uint32_t, std::vector<std::string>> views_;
    std::vector<LayerRow> rows_;
};

}  // namespace

std::vector<LayerRow> arrange_layers(const std::vector<Manifest>& manifests,
                                     const std::vector<storage::Store::ViewInfo>& views) {
    return Arrangement(manifests, views).rows();
}

}  // namespace ivmm::overlay
