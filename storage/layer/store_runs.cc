#include <fmt/format.h>
#include <algorithm>
#include <iterator>
#include <span>

#include "base/log.h"
#include "storage/layer/layer_directories.h"
#include "storage/layer/store_impl.h"
#include "storage/layer/view_lock.h"

namespace ivmm::storage {
namespace {

/// The children of a layer that views need.
std::vector<uint32_t> needed_children(const Census& census, uint32_t number) {
    const auto needed = census.needed();
    auto children = census.children(number);
    std::erase_if(children, [&](uint32_t child) { return !needed.contains(child); });
    return children;
}

/// The views that need a layer, by name.
std::vector<std::string> views_over(const Census& census, uint32_t number) {
    std::vector<std::string> names;
    for (const auto& [name, top] : census.views) {
        const auto chain = census.chain(top);
        if (chain && std::ranges::find(*chain, number) != chain->end()) {
            names.push_back(name);
        }
    }
    return names;
}

bool is_sealed(const Census& census, uint32_t number) {
    return census.layers.at(number).state == Manifest::State::kSealed;
}

/// The view whose top a layer is; after a crash, a frozen one can be that.
const std::string* view_on(const Census& census, uint32_t number) {
    const auto view =
        std::ranges::find_if(census.views, [&](const auto& item) { return item.second == number; });
    return view == census.views.end() ? nullptr : &view->first;
}

/// The views that need `number`, but not `above`, which is made on it.
std::vector<std::string> others_over(const Census& census, uint32_t number, uint32_t above) {
    auto others = views_over(census, number);
    const auto with_above = views_over(census, above);
    std::erase_if(others, [&](const std::string& name) {
        return std::ranges::find(with_above, name) != with_above.end();
    });
    return others;
}

Result<Store::Runs> runs_of(const Census& census, const std::string& view) {
    const auto top = census.views.find(view);
    if (top == census.views.end()) {
        return fail("there is no view \"{}\"", view);
    }
    IVMM_ASSIGN(const auto chain, census.chain(top->second));
    Store::Runs found;
    Store::Run run;
    const auto end_run = [&] {
        if (run.size() > 1) {
            found.runs.push_back(run);
        }
        run.clear();
    };
    for (size_t i = 1; i < chain.size(); ++i) {
        const uint32_t layer = chain[i];
        if (!is_sealed(census, layer)) {
            end_run();
            found.runs.clear();  // over it, nothing is as it will be after a crash
            found.kept.push_back(fmt::format("layer {} is not sealed yet", layer));
            continue;
        }
        if (const auto* const other = view_on(census, layer)) {
            end_run();
            found.kept.push_back(fmt::format("layer {} is the top of view \"{}\"", layer, *other));
            continue;
        }
        if (!run.empty() && needed_children(census, layer).size() > 1) {
            end_run();
            found.kept.push_back(
                fmt::format("layer {} stays apart from those above: it is also below {}", layer,
                            fmt::join(others_over(census, layer, chain[i - 1]), ", ")));
        }
        run.push_back(layer);
    }
    end_run();
    return found;
}

Result<Census> census_without_damage(const StoreDirs& dirs, const std::string& uuid) {
    IVMM_ASSIGN(auto census, Census::take(dirs, uuid));
    if (!census.damage.empty()) {
        return annotate(census.damage.front(), "with damage in the store, nothing is flattened");
    }
    return census;
}

}  // namespace

Result<Store::Runs> Store::find_runs(const std::string& view) const {
    IVMM_ASSIGN(const auto census, census_without_damage(impl_->dirs, impl_->record.uuid));
    return runs_of(census, view);
}

Result<Store::Replacement> Store::make_replacement(const Run& run) {
    const auto& dirs = impl_->dirs;
    const auto& uuid = impl_->record.uuid;
    IVMM_ASSIGN(const auto lowest, read_manifest(dirs, uuid, run.back()));
    IVMM_ASSIGN(const auto name,
                storage::make_replacement(
                    dirs, {.uuid = uuid, .number = run.front(), .parent = lowest.parent}));
    auto layer = impl_->open_layer(name, run.front(), false);
    if (!layer) {
        std::ignore = delete_hidden(dirs, name);
        return Unexpected{layer.error()};
    }
    return Replacement(name, *std::move(layer));
}

Result<void> Store::replace_run(const Run& run, Replacement& replacement,
                                const std::set<std::string>& served,
                                const std::function<bool()>& replaced) {
    const auto& dirs = impl_->dirs;
    const auto& uuid = impl_->record.uuid;
    const uint32_t number = run.front();
    Layer& layer = *replacement.layer();
    layer.freeze();
    IVMM_TRY(impl_->seal(replacement.name_, number));
    layer.set_sealed({});

    const std::scoped_lock slow(impl_->slow);
    IVMM_ASSIGN(const auto before, census_without_damage(dirs, uuid));
    const auto views = views_over(before, number);
    if (views.empty()) {
        return fail("no view needs layer {} any more", number);
    }
    std::vector<UniqueFd> locks;
    for (const auto& view : views) {
        if (!served.contains(view)) {
            IVMM_ASSIGN(auto lock, take_view_lock(dirs.locks.get(), view));
            locks.push_back(std::move(lock));
        }
    }
    // From here on, nobody else can change what is over the run.
    IVMM_ASSIGN(const auto census, census_without_damage(dirs, uuid));
    IVMM_ASSIGN(const auto now, runs_of(census, views.front()));
    const auto has_run = [&](const Run& present) {
        return std::search(present.begin(), present.end(), run.begin(), run.end()) != present.end();
    };
    if (views_over(census, number) != views || !std::ranges::any_of(now.runs, has_run) ||
        census.layers.at(run.back()).parent != layer.parent()) {
        return fail("what is made on layer {} has changed meanwhile", number);
    }
    // If it fails, nobody knows what is on the medium: all stays.
    replacement.used_ = true;
    replacement.leftovers_.clear();
    IVMM_TRY(exchange_layer(dirs, replacement.name_, number));
    {
        const std::scoped_lock lock(impl_->mutex);
        impl_->opened[number] = replacement.layer();
    }
    if (!replaced()) {
        return {};
    }
    replacement.leftovers_ = {replacement.name_};
    const auto needed = census.needed();
    std::vector<uint32_t> unneeded;
    for (const uint32_t merged : std::span(run).subspan(1)) {
        // What was made for a fork of it before it was frozen.
        std::ranges::copy_if(census.children(merged), std::back_inserter(unneeded),
                             [&](uint32_t child) { return !needed.contains(child); });
    }
    std::ranges::copy(std::span(run).subspan(1), std::back_inserter(unneeded));
    if (const auto discarded = discard_layers(dirs, unneeded); !discarded) {
        log::warning("what was flattened takes space until the store is opened next: {}",
                     discarded.error().message);
        return {};
    }
    std::ranges::transform(unneeded, std::back_inserter(replacement.leftovers_), discarded_name);
    return {};
}

Result<void> Store::delete_leftovers(const Replacement& replacement) {
    if (!replacement.used_) {
        replacement.layer_->retire();
    }
    Result<void> outcome;
    for (const auto& name : replacement.leftovers_) {
        if (auto deleted = delete_hidden(impl_->dirs, name); !deleted) {
            outcome = std::move(deleted);
        }
    }
    return outcome;
}

}  // namespace ivmm::storage
