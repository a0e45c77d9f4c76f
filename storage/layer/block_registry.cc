#include "storage/layer/block_registry.h"

#include <algorithm>
#include <cassert>
#include <vector>

namespace ivmm::storage {

Result<std::shared_ptr<BlockFile>> BlockRegistry::get(uint64_t inode, const Open& open) {
    std::shared_ptr<Entry> entry;
    {
        const std::scoped_lock lock(mutex_);
        if (entries_.size() >= forget_at_) {
            forget_unused();
        }
        auto& slot = entries_[inode];
        if (slot == nullptr) {
            slot = std::make_shared<Entry>();
        }
        entry = slot;
    }
    const std::scoped_lock lock(entry->opening);
    if (auto file = entry->file.lock()) {
        return file;
    }
    IVMM_ASSIGN(auto file, open());
    entry->file = file;
    return file;
}

void BlockRegistry::keep(uint64_t inode, std::shared_ptr<BlockFile> file) {
    const std::scoped_lock lock(mutex_);
    // The caller has the file from get(), so forget_unused() has left its entry alone.
    const auto entry = entries_.find(inode);
    assert(entry != entries_.end());
    entry->second->kept = std::move(file);
}

PosixResult<void> BlockRegistry::flush() {
    std::vector<std::shared_ptr<Entry>> entries;
    {
        const std::scoped_lock lock(mutex_);
        for (const auto& [inode, entry] : entries_) {
            entries.push_back(entry);
        }
    }
    PosixResult<void> outcome;
    for (const auto& entry : entries) {
        std::shared_ptr<BlockFile> file;
        {
            const std::scoped_lock lock(entry->opening);
            file = entry->file.lock();
        }
        if (file == nullptr) {
            continue;
        }
        if (file->dirty()) {
            if (auto flushed = file->flush(); !flushed) {
                outcome = outcome ? flushed : outcome;
                continue;
            }
        }
        // Whoever writes from here on keeps it again.
        const std::scoped_lock lock(mutex_);
        if (!file->dirty()) {
            entry->kept.reset();
        }
    }
    return outcome;
}

void BlockRegistry::forget_unused() {
    std::erase_if(entries_, [](const auto& item) {
        auto& entry = *item.second;
        // With the registry locked and no second owner, nobody gets at the entry any more.
        if (item.second.use_count() > 1) {
            return false;
        }
        const std::unique_lock lock(entry.opening, std::try_to_lock);
        return lock.owns_lock() && entry.file.expired();
    });
    forget_at_ = std::max<size_t>(64, entries_.size() * 2);
}

}  // namespace ivmm::storage
