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

void View::close_directory(Inode& directory) {
    const Tree tree = lock_tree();
    --open_count_;
    --directory.opens;
    table_.drop_if_unused(&directory);
}

}  // namespace ivmm::storage
