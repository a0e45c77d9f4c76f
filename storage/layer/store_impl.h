#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "storage/layer/census.h"
#include "storage/layer/store.h"
#include "storage/layer/store_open.h"

namespace ivmm::storage {

/// What a Store is inside; for store*.cc.
struct Store::Impl {
    explicit Impl(OpenedStore&& store)
        : dirs(std::move(store.dirs)),
          record(std::move(store.record)),
          lower(std::move(store.lower)) {}

    StoreDirs dirs;
    StoreRecord record;
    std::vector<std::shared_ptr<Layer>> lower;

    /// Serialises what takes long. Before `mutex`.
    std::mutex slow;
    /// For the members below; held for moments.
    std::mutex mutex;
    std::map<uint32_t, std::weak_ptr<Layer>> opened;
    std::map<uint32_t, std::vector<std::shared_ptr<Layer>>> spares;  ///< by parent
    std::vector<uint32_t> useless;      ///< former spares of a top that has been frozen
    std::vector<std::string> replaced;  ///< hidden names of the former files of views

    /// Kernel errors of earlier writes are told once; so the first is final.
    std::atomic<int> sync_error = 0;

    std::shared_ptr<Layer> find_opened(uint32_t number);
    /// `name`: of the directory under layers/.
    Result<std::shared_ptr<Layer>> open_layer(const std::string& name, uint32_t number,
                                              bool writable);
    Result<std::shared_ptr<Layer>> open_layer(uint32_t number, bool writable);
    Result<void> seal(const std::string& name, uint32_t number);
    Result<void> finish_seal(Layer& layer);
    Result<std::vector<std::shared_ptr<Layer>>> stack(uint32_t top, bool to_be_served);
    Result<uint32_t> writable_top(const std::string& view, bool create);
    Result<uint32_t> move_to_fresh_layer(const std::string& view, uint32_t parent);
    Result<void> drop_spares(const Census& census, uint32_t top);
    Result<void> remove_layers(const std::vector<uint32_t>& numbers);
    Result<void> add_spares(uint32_t parent, std::vector<std::shared_ptr<Layer>>& spares,
                            size_t count);
};

}  // namespace ivmm::storage
