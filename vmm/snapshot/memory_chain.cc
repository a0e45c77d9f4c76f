#include "vmm/snapshot/memory_chain.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/snapshot/file_pages.h"
#include "vmm/snapshot/memory_file.h"

namespace ivmm {
namespace {

/// Where the page lies in the guest.
Gpa address_of(const GuestMemory& memory, uint64_t page) {
    const uint64_t offset = page * kPageSize;
    const auto& regions = memory.regions();
    const auto region = std::find_if(regions.rbegin(), regions.rend(), [&](const RamRegion& one) {
        return one.file_offset <= offset;
    });
    return region->start + (offset - region->file_offset);
}

/// Copies a run of pages, which lies in one region, from a file into the guest's memory.
Result<void> load_pages(int file, uint64_t first, uint64_t count, const GuestMemory& memory) {
    auto rest = memory.dma(address_of(memory, first), count * kPageSize);
    if (!rest) {
        return fail("pages {} to {} are not in one part of the guest's memory", first,
                    first + count - 1);
    }
    uint64_t at = first * kPageSize;
    while (rest->iov_len > 0) {
        const ssize_t n = ::preadv(file, &*rest, 1, static_cast<off_t>(at));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? fail_errno("cannot read") : fail("the file has become shorter");
        }
        rest->iov_base = static_cast<std::byte*>(rest->iov_base) + n;
        rest->iov_len -= static_cast<size_t>(n);
        at += static_cast<uint64_t>(n);
    }
    return {};
}

}  // namespace

Result<MemoryChain> MemoryChain::open(const std::string& folder, const Snapshot& top) {
    MemoryChain chain(top.memory.bytes);
    IVMM_TRY(chain.add(folder, top.memory));
    std::vector<SnapshotId> seen = {top.guest.id};
    std::string here = folder;
    for (auto next = top.memory.base; next;) {
        const std::string there =
            next->path.starts_with('/') ? next->path : here + "/" + next->path;
        const auto based_on = [&](Error error) {
            return annotate(std::move(error),
                            fmt::format("snapshot '{}' is based on '{}'", here, there));
        };
        if (seen.size() == kMaxDepth) {
            return based_on(
                fail("more than {} snapshots build on each other; make one without a base",
                     kMaxDepth)
                    .error);
        }
        auto base = read_snapshot(there);
        if (!base) {
            return based_on(std::move(base).error());
        }
        if (base->guest.id != next->id) {
            return based_on(fail("which is another snapshot now; put the right one there").error);
        }
        if (std::ranges::find(seen, next->id) != seen.end()) {
            return based_on(fail("which is based on it itself").error);
        }
        if (base->memory.bytes != chain.bytes_) {
            return based_on(
                fail("which has {} bytes of memory, not {}", base->memory.bytes, chain.bytes_)
                    .error);
        }
        IVMM_TRY(chain.add(there, base->memory));
        seen.push_back(next->id);
        here = there;
        next = base->memory.base;
    }
    return chain;
}

Result<void> MemoryChain::add(const std::string& folder, const SnapshotMemory& memory) {
    Layer layer;
    layer.path = folder + "/" + kMemoryFile;
    layer.file = UniqueFd(::open(layer.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat info {};
    if (!layer.file || ::fstat(layer.file.get(), &info) != 0) {
        return fail_errno("cannot open the memory '{}' of a snapshot", layer.path);
    }
    if (!S_ISREG(info.st_mode)) {
        return fail("'{}' is not the memory of a snapshot: it is not a file", layer.path);
    }
    if (static_cast<uint64_t>(info.st_size) != memory.bytes) {
        return fail("'{}' has {} bytes where the snapshot has {}: it is {}", layer.path,
                    info.st_size, memory.bytes,
                    static_cast<uint64_t>(info.st_size) < memory.bytes ? "truncated" : "damaged");
    }
    layer.memory = memory;
    if (memory.base) {
        layer.pages.emplace(memory.bytes / kPageSize);
        std::ranges::copy(memory.pages, layer.pages->words().begin());
    }
    layers_.push_back(std::move(layer));
    return {};
}

Result<void> MemoryChain::read(uint64_t first, uint64_t count, ByteSpan out) const {
    // From the bottom up: what is on top counts.
    for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
        for (uint64_t page = first; page < first + count;) {
            uint64_t end = page;
            while (end < first + count && (!layer->pages || layer->pages->contains(end))) {
                ++end;
            }
            const auto part = out.subspan((page - first) * kPageSize, (end - page) * kPageSize);
            if (auto done = read_pages(layer->file.get(), page, part); !done) {
                return annotate(std::move(done).error(), "'" + layer->path + "'");
            }
            page = end + 1;
        }
    }
    return {};
}

Result<std::unique_ptr<GuestMemory>> MemoryChain::map() const {
    UniqueFd image(::fcntl(layers_.back().file.get(), F_DUPFD_CLOEXEC, 0));
    if (!image) {
        return fail_errno("cannot duplicate a descriptor");
    }
    IVMM_ASSIGN(auto memory, GuestMemory::map_image(std::move(image), bytes_));
    PageSet wanted(bytes_ / kPageSize);
    wanted.insert_all();
    for (size_t i = 0; i + 1 < layers_.size(); ++i) {
        const Layer& layer = layers_[i];
        PageSet pages = *layer.pages;
        const auto left = wanted.words();
        const auto words = pages.words();
        for (size_t w = 0; w < words.size(); ++w) {
            words[w] &= left[w];
            left[w] &= ~words[w];
        }
        Result<void> loaded;
        pages.for_each_run([&](uint64_t first, uint64_t count) {
            if (loaded) {
                loaded = load_pages(layer.file.get(), first, count, *memory);
            }
        });
        if (!loaded) {
            return annotate(std::move(loaded).error(), "'" + layer.path + "'");
        }
    }
    return memory;
}

Result<void> MemoryChain::check() const {
    for (const auto& layer : layers_) {
        if (auto checked = check_memory_file(layer.file.get(), layer.memory); !checked) {
            return annotate(std::move(checked).error(), "'" + layer.path + "'");
        }
    }
    return {};
}

}  // namespace ivmm
