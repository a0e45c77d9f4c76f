#include "storage/flatten/flatten.h"

#include <algorithm>

#include "base/log.h"
#include "storage/flatten/merge.h"
#include "storage/layer/files.h"

namespace ivmm::storage {
namespace {

uint64_t size_on_disk(const Store& store, uint32_t layer) {
    const std::string folder = fmt::format("{}/layers/{}", store.directory(), layer);
    return disk_usage(folder + "/tree") + disk_usage(folder + "/maps");
}

class Flatten {
 public:
    Flatten(Store& store, const FlattenOptions& options) : store_(store), options_(options) {}

    Result<FlattenReport> run(const std::string& view) {
        IVMM_ASSIGN(auto found, store_.find_runs(view));
        FlattenReport report;
        report.view = view;
        report.kept = std::move(found.kept);
        for (const auto& run : found.runs) {
            for (const uint32_t layer : run) {
                report.bytes_before += size_on_disk(store_, layer);
            }
        }
        total_ = std::max<uint64_t>(report.bytes_before, 1);
        for (const auto& run : found.runs) {
            if (auto merged = merge(run); !merged) {
                return annotate(
                    std::move(merged).error(),
                    fmt::format("layers {} to {} stay as they are", run.back(), run.front()));
            }
            report.bytes_after += size_on_disk(store_, run.front());
            report.merged.push_back(run);
        }
        return report;
    }

 private:
    Result<void> merge(const Store::Run& run) {
        IVMM_ASSIGN(const Stack stack, store_.stack(run.front()));
        const StackSpan layers = StackSpan(stack).first(std::min(run.size(), stack.size()));
        if (!std::ranges::equal(run, layers, {}, {}, &Layer::number)) {
            return fail("what is below layer {} has changed meanwhile", run.front());
        }
        IVMM_ASSIGN(auto replacement, store_.make_replacement(run));
        auto outcome = fill_and_replace(run, stack, replacement);
        if (outcome) {
            for (const auto& layer : layers) {
                layer->retire();
            }
        }
        if (const auto deleted = store_.delete_leftovers(replacement); !deleted) {
            log::warning("what was flattened takes space until the store is opened next: {}",
                         deleted.error().message);
        }
        return outcome;
    }

    Result<void> fill_and_replace(const Store::Run& run, const Stack& stack,
                                  Store::Replacement& replacement) {
        const auto merged =
            merge_run(RunTree(stack, run.size()), *replacement.layer(), [this](uint64_t bytes) {
                done_ += bytes;
                return options_.progress(
                    std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_)));
            });
        IVMM_TRY(merged);
        if (options_.replace) {
            return options_.replace(run, StackSpan(stack).first(run.size()), replacement);
        }
        return store_.replace_run(run, replacement, {}, [] { return true; });
    }

    Store& store_;
    const FlattenOptions& options_;
    uint64_t total_ = 1;
    uint64_t done_ = 0;
};

}  // namespace

Result<FlattenReport> flatten(Store& store, const std::string& view,
                              const FlattenOptions& options) {
    return Flatten(store, options).run(view);
}

}  // namespace ivmm::storage
