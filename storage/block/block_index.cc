#include "storage/block/block_index.h"

#include <algorithm>
#include <atomic>

namespace ivmm::storage {

struct BlockIndex::LeafNode {
    uint64_t owner = 0;
    Leaf sources{};
};

struct BlockIndex::InnerNode {
    uint64_t owner = 0;
    std::array<Slot, size_t{1} << kFanBits> slots{};
};

uint64_t BlockIndex::next_owner() {
    static std::atomic<uint64_t> last = 0;
    return ++last;
}

BlockIndex BlockIndex::fork() {
    BlockIndex copy;
    copy.root_ = root_;
    copy.level_ = level_;
    owner_ = next_owner();
    return copy;
}

std::pair<const BlockIndex::Slot*, unsigned> BlockIndex::find(uint64_t block) const {
    const Slot* slot = &root_;
    unsigned level = level_;
    while (const auto* inner = std::get_if<std::shared_ptr<InnerNode>>(slot)) {
        --level;
        slot = &(*inner)->slots[(block / span_of(level)) % (*inner)->slots.size()];
    }
    return {slot, level};
}

BlockIndex::Run BlockIndex::piece(uint64_t block) const {
    if (block >= span_of(level_)) {
        return {kZeroSource, kMaxBlocks};
    }
    const auto [slot, level] = find(block);
    if (const auto* leaf = std::get_if<std::shared_ptr<LeafNode>>(slot)) {
        const Leaf& sources = (*leaf)->sources;
        const auto* at = sources.data() + block % kLeafBlocks;
        const BlockSource source = *at;
        const auto* other = std::find_if(at, sources.data() + kLeafBlocks,
                                         [&](BlockSource s) { return s != source; });
        return {source, block + static_cast<uint64_t>(other - at)};
    }
    return {std::get<BlockSource>(*slot), (block / span_of(level) + 1) * span_of(level)};
}

BlockIndex::Run BlockIndex::run(uint64_t block, uint64_t end) const {
    Run result = piece(block);
    while (result.end < end) {
        const Run next = piece(result.end);
        if (next.source != result.source) {
            break;
        }
        result.end = next.end;
    }
    result.end = std::min(result.end, end);
    return result;
}

void BlockIndex::grow(uint64_t end) {
    while (span_of(level_) < end) {
        if (root_ != Slot(kZeroSource)) {
            auto inner = std::make_shared<InnerNode>();
            inner->owner = owner_;
            inner->slots[0] = std::move(root_);
            root_ = std::move(inner);
        }
        ++level_;
    }
}

BlockIndex::Leaf& BlockIndex::own_leaf(Slot& slot) {
    if (const auto* source = std::get_if<BlockSource>(&slot)) {
        auto leaf = std::make_shared<LeafNode>();
        leaf->owner = owner_;
        leaf->sources.fill(*source);
        slot = std::move(leaf);
    }
    auto& leaf = std::get<std::shared_ptr<LeafNode>>(slot);
    if (leaf->owner != owner_) {
        leaf = std::make_shared<LeafNode>(*leaf);
        leaf->owner = owner_;
    }
    return leaf->sources;
}

BlockIndex::InnerNode& BlockIndex::own_inner(Slot& slot) {
    if (const auto* source = std::get_if<BlockSource>(&slot)) {
        auto inner = std::make_shared<InnerNode>();
        inner->owner = owner_;
        inner->slots.fill(*source);
        slot = std::move(inner);
    }
    auto& inner = std::get<std::shared_ptr<InnerNode>>(slot);
    if (inner->owner != owner_) {
        inner = std::make_shared<InnerNode>(*inner);
        inner->owner = owner_;
    }
    return *inner;
}

/// Makes a node whose parts are all alike a source.
void BlockIndex::collapse(Slot& slot) {
    if (const auto* leaf = std::get_if<std::shared_ptr<LeafNode>>(&slot)) {
        const Leaf& sources = (*leaf)->sources;
        // The last one first: a file that is written from its start to its end is done quickly.
        if (sources.back() == sources.front() &&
            std::equal(sources.begin() + 1, sources.end(), sources.begin())) {
            slot = BlockSource{sources.front()};
        }
    } else if (const auto* inner = std::get_if<std::shared_ptr<InnerNode>>(&slot)) {
        const auto& slots = (*inner)->slots;
        const auto* first = std::get_if<BlockSource>(slots.data());
        if (first != nullptr && slots.back() == slots.front() &&
            std::equal(slots.begin() + 1, slots.end(), slots.begin())) {
            slot = BlockSource{*first};
        }
    }
}

void BlockIndex::set_in(Slot& slot, unsigned level, uint64_t first, uint64_t end,
                        BlockSource source) {
    if (slot == Slot(source)) {
        return;
    }
    if (first == 0 && end == span_of(level)) {
        slot = source;
        return;
    }
    if (level == 0) {
        Leaf& leaf = own_leaf(slot);
        std::fill(leaf.begin() + static_cast<ptrdiff_t>(first),
                  leaf.begin() + static_cast<ptrdiff_t>(end), source);
    } else {
        InnerNode& inner = own_inner(slot);
        const uint64_t span = span_of(level - 1);
        for (uint64_t at = first; at < end;) {
            const uint64_t child = at / span;
            const uint64_t stop = std::min(end, (child + 1) * span);
            set_in(inner.slots.at(child), level - 1, at - child * span, stop - child * span,
                   source);
            at = stop;
        }
    }
    collapse(slot);
}

void BlockIndex::set(uint64_t first, uint64_t end, BlockSource source) {
    if (source == kZeroSource) {
        end = std::min(end, span_of(level_));
    }
    if (first < end) {
        grow(end);
        set_in(root_, level_, first, end, source);
    }
}

void BlockIndex::copy_leaf(uint64_t leaf, Leaf& out) const {
    if (leaf * kLeafBlocks >= span_of(level_)) {
        out.fill(kZeroSource);
        return;
    }
    const Slot& slot = *find(leaf * kLeafBlocks).first;
    if (const auto* node = std::get_if<std::shared_ptr<LeafNode>>(&slot)) {
        out = (*node)->sources;
    } else {
        out.fill(std::get<BlockSource>(slot));
    }
}

void BlockIndex::store_in(Slot& slot, unsigned level, uint64_t leaf, const Leaf& sources) {
    if (level == 0) {
        own_leaf(slot) = sources;
    } else {
        const uint64_t span = span_of(level - 1) / kLeafBlocks;
        store_in(own_inner(slot).slots.at(leaf / span), level - 1, leaf % span, sources);
    }
    collapse(slot);
}

void BlockIndex::store_leaf(uint64_t leaf, const Leaf& sources) {
    grow((leaf + 1) * kLeafBlocks);
    store_in(root_, level_, leaf, sources);
}

}  // namespace ivmm::storage
