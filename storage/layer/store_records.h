#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "storage/layer/marks.h"

/// The small files of a store besides the manifests (store.h). The errors of the decoders are
/// those of record.h.
namespace ivmm::storage {

/// STORE
struct StoreRecord {
    static constexpr uint32_t kVersion = 1;
    std::string uuid;
    MarkStyle style = MarkStyle::kUser;
    std::vector<std::string> lower;  ///< absolute paths without links, topmost first

    bool operator==(const StoreRecord&) const = default;
};
std::string encode_store_record(const StoreRecord& record);
Result<StoreRecord> decode_store_record(std::string_view text);

/// views/NAME
struct ViewRecord {
    static constexpr uint32_t kVersion = 1;
    uint32_t top = 0;  ///< the number of its writable layer

    bool operator==(const ViewRecord&) const = default;
};
std::string encode_view_record(const ViewRecord& record);
Result<ViewRecord> decode_view_record(std::string_view text);

/// layers/NEXT
struct NextRecord {
    static constexpr uint32_t kVersion = 1;
    uint32_t next = 0;  ///< no layer has had this number or a higher one

    bool operator==(const NextRecord&) const = default;
};
std::string encode_next_record(const NextRecord& record);
Result<NextRecord> decode_next_record(std::string_view text);

}  // namespace ivmm::storage
