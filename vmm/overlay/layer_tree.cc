#include "vmm/overlay/layer_tree.h"

#include <fts.h>
#include <sys/stat.h>

#include <array>
#include <map>
#include <memory>
#include <set>
#include <utility>

namespace ivmm::overlay {
namespace {

using storage::Manifest;

constexpr uint64_t kBlock = 512;  // the unit of st_blocks

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

uint64_t disk_usage(const std::string& directory) {
    std::string path = directory;
    const std::array<char*, 2> roots{path.data(), nullptr};
    const std::unique_ptr<FTS, int (*)(FTS*)> walk(
        ::fts_open(roots.data(), FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, nullptr), ::fts_close);
    std::set<std::pair<dev_t, ino_t>> linked;
    uint64_t blocks = 0;
    while (const FTSENT* const entry = walk ? ::fts_read(walk.get()) : nullptr) {
        const struct stat* const info = entry->fts_statp;
        if (entry->fts_info == FTS_DP || entry->fts_info == FTS_NS || entry->fts_info == FTS_ERR) {
            continue;
        }
        const bool again = !S_ISDIR(info->st_mode) && info->st_nlink > 1 &&
                           !linked.emplace(info->st_dev, info->st_ino).second;
        blocks += again ? 0 : static_cast<uint64_t>(info->st_blocks);
    }
    return blocks * kBlock;
}

}  // namespace ivmm::overlay
