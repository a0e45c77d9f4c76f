#include "storage/layer/layer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "storage/layer/files.h"

namespace ivmm::storage {

namespace {

/// So that names of two processes, and of two lives of one process number, differ.
uint64_t random_number() {
    uint64_t number = 0;
    while (::getrandom(&number, sizeof(number), 0) != sizeof(number)) {
    }
    return number;
}

}  // namespace

Layer::Layer(uint32_t number, std::string name, bool in_store, Marks marks)
    : number_(number), name_(std::move(name)), in_store_(in_store), marks_(marks) {}

Layer::~Layer() = default;

Result<std::shared_ptr<Layer>> Layer::open_branch(const std::string& directory, uint32_t number) {
    auto layer =
        std::shared_ptr<Layer>(new Layer(number, directory, false, Marks(MarkStyle::kTrusted)));
    layer->tree_.reset(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!layer->tree_) {
        return fail_errno("cannot open the lower branch {}", directory);
    }
    layer->frozen_ = true;
    layer->set_sealed({});
    return layer;
}

Result<std::shared_ptr<Layer>> Layer::open(UniqueFd directory, const Manifest& manifest,
                                           MarkStyle style, bool writable) {
    auto layer = std::shared_ptr<Layer>(
        new Layer(manifest.number, fmt::format("layer {}", manifest.number), true, Marks(style)));
    layer->parent_ = manifest.parent;
    layer->directory_ = std::move(directory);
    const std::pair<const char*, UniqueFd*> parts[] = {{"tree", &layer->tree_},
                                                       {"work", &layer->work_},
                                                       {"maps", &layer->maps_},
                                                       {"links", &layer->links_}};
    for (const auto& [name, fd] : parts) {
        auto opened = open_directory(layer->directory_.get(), name);
        if (!opened) {
            return fail("cannot open {}/ of {}: {}", name, layer->name_,
                        error_text(opened.error().code));
        }
        *fd = *std::move(opened);
    }
    const auto links =
        for_each_entry(layer->links_.get(),
                       [&](const char* /*name*/, unsigned char /*type*/) -> PosixResult<void> {
                           layer->note_link();
                           return {};
                       });
    if (!links) {
        return fail("cannot read links/ of {}: {}", layer->name_, error_text(links.error().code));
    }
    if (manifest.state == Manifest::State::kSealed) {
        layer->frozen_ = true;
        layer->set_sealed({});
    } else if (writable) {
        IVMM_TRY(layer->claim());
    }
    return layer;
}

void Layer::retire() {
    std::ignore = ::flock(tree_.get(), LOCK_UN);
    for (UniqueFd* const fd : {&work_, &maps_, &links_, &directory_}) {
        fd->reset();
    }
}

Result<void> Layer::claim() {
    if (::flock(directory_.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            return fail("{} is still being written by another process; try again when it is done",
                        name_);
        }
        return fail_errno("cannot lock {}", name_);
    }
    if (const auto emptied = empty_directory(work_.get()); !emptied) {
        return fail("cannot empty work/ of {}: {}", name_, error_text(emptied.error().code));
    }
    return {};
}

std::string Layer::unique_name() {
    static const uint64_t random = random_number();
    static std::atomic<uint64_t> counter = 0;
    // The process number, for a process that was forked after the number was drawn.
    return fmt::format("{:016x}-{:x}-{:x}", random, ::getpid(), counter++);
}

Result<std::shared_ptr<BlockFile>> Layer::block_file(
    uint64_t inode, const std::function<Result<std::shared_ptr<BlockFile>>()>& open) {
    return block_files_.get(inode, open);
}

void Layer::keep_until_flushed(uint64_t inode, std::shared_ptr<BlockFile> file) {
    block_files_.keep(inode, std::move(file));
}

PosixResult<void> Layer::flush_block_files() {
    return block_files_.flush();
}

void Layer::set_sealed(PosixResult<void> outcome) {
    const std::scoped_lock lock(seal_mutex_);
    if (seal_outcome_) {
        return;
    }
    sealed_ = outcome.has_value();
    seal_outcome_ = outcome;
    if (sealed_ && directory_) {
        std::ignore = ::flock(directory_.get(), LOCK_UN);
        std::ignore = ::flock(tree_.get(), LOCK_SH | LOCK_NB);
    }
    seal_decided_.notify_all();
}

PosixResult<void> Layer::wait_sealed() const {
    if (sealed_) {
        return {};
    }
    std::unique_lock lock(seal_mutex_);
    seal_decided_.wait(lock, [this] { return seal_outcome_.has_value(); });
    return *seal_outcome_;
}

}  // namespace ivmm::storage
