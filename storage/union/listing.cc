#include "storage/union/view.h"

namespace ivmm::storage {

PosixResult<std::unique_ptr<Listing>> View::open_directory(Inode& directory) {
    std::vector<Listing::Part> parts;
    {
        const Gate::Pass pass(gate_);
        const Tree tree = lock_tree();
        if (!directory.removed) {
            IVMM_TRY(check_directory(directory));
            IVMM_ASSIGN(parts, Listing::open_parts(directory.places));
        }
        ++directory.opens;
        ++open_count_;
    }
    // Reading a large directory takes long; nobody waits for it.
    return std::make_unique<Listing>(std::move(parts));
}

PosixResult<void> View::rewind(Inode& directory, Listing& listing) {
    // Whether the listing is of the directory as it is now; if not, makes it so.
    const auto is_present = [&]() -> PosixResult<bool> {
        const Gate::Pass pass(gate_);
        const Tree tree = lock_tree();
        if (directory.removed) {
            return true;
        }
        IVMM_TRY(refresh(directory));
        if (listing.is_of(directory.places)) {
            return true;
        }
        IVMM_ASSIGN(auto parts, Listing::open_parts(directory.places));
        listing.set_parts(std::move(parts));
        return false;
    };
    IVMM_TRY(is_present());
    while (true) {
        // Nobody waits for it; but a layer may be replaced and deleted meanwhile.
        IVMM_TRY(listing.rewind());
        IVMM_ASSIGN(const bool complete, is_present());
        if (complete) {
            return {};
        }
    }
}

void View::close_directory(Inode& directory) {
    const Tree tree = lock_tree();
    --open_count_;
    --directory.opens;
    table_.drop_if_unused(&directory);
}

}  // namespace ivmm::storage
