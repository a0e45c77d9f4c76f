#include <algorithm>
#include <chrono>
#include <tuple>

#include "storage/union/object.h"
#include "storage/union/view.h"

namespace ivmm::storage {

Result<View::ForkTimes> View::fork(std::shared_ptr<Layer> next,
                                   const std::vector<std::shared_ptr<Layer>>& others,
                                   const std::function<Result<void>()>& commit) {
    using Clock = std::chrono::steady_clock;
    using Microseconds = std::chrono::duration<double, std::micro>;
    struct stat dressed_for {};
    const auto dress_all = [&]() -> Result<void> {
        const Layer& top = *stack_.front();
        const auto root = stat_object({top.tree(), ""});
        if (!root) {
            return fail("cannot read the root directory's attributes: {}",
                        error_text(root.error().code));
        }
        // The owner and mode as well: some kernels' ctime is as coarse as their tick.
        const auto identity = [](const struct stat& attributes) {
            return std::tuple(attributes.st_ctim.tv_sec, attributes.st_ctim.tv_nsec,
                              attributes.st_mode, attributes.st_uid, attributes.st_gid);
        };
        if (identity(*root) == identity(dressed_for)) {
            return {};
        }
        std::vector<std::shared_ptr<Layer>> layers = others;
        layers.push_back(next);
        for (const auto& layer : layers) {
            if (const auto done = dress(*layer, top); !done) {
                return fail("cannot copy the root directory's attributes to {}: {}", layer->name(),
                            error_text(done.error().code));
            }
        }
        dressed_for = *root;
        return {};
    };
    {
        // Beforehand, so that with the gate closed it only has to be looked at.
        const Gate::Pass pass(gate_);
        const Tree tree = lock_tree();
        IVMM_TRY(dress_all());
    }
    const auto begin = Clock::now();
    Clock::time_point drained;
    {
        const Gate::Closure closure(gate_);
        drained = Clock::now();
        const Tree tree = lock_tree();
        IVMM_TRY(dress_all());
        IVMM_TRY(commit());
        stack_.front()->freeze();
        stack_.insert(stack_.begin(), std::move(next));
        ++generation_;
    }
    const auto end = Clock::now();
    return ForkTimes{Microseconds(drained - begin).count(), Microseconds(end - begin).count()};
}

bool View::replace_layers(StackSpan replaced, std::shared_ptr<Layer> merged) {
    const Gate::Closure closure(gate_);
    const Tree tree = lock_tree();
    const auto first = std::search(stack_.begin(), stack_.end(), replaced.begin(), replaced.end());
    if (first == stack_.end() || (writable_ && first == stack_.begin())) {
        return false;
    }
    const auto last = std::next(first, static_cast<ptrdiff_t>(replaced.size()));
    replaced_.insert(replaced_.end(), first, last);
    *first = std::move(merged);
    stack_.erase(std::next(first), last);
    ++generation_;
    return true;
}

}  // namespace ivmm::storage
