#include "storage/layer/store_records.h"

#include "storage/layer/manifest.h"
#include "storage/layer/record.h"

namespace ivmm::storage {

namespace {

constexpr const char* kStoreFormat = "ivmm-store";
constexpr const char* kViewFormat = "ivmm-view";
constexpr const char* kNextFormat = "ivmm-next-layer";

}  // namespace

std::string encode_store_record(const StoreRecord& record) {
    return encode_record(kStoreFormat, StoreRecord::kVersion,
                         {{"uuid", record.uuid},
                          {"marks", record.style == MarkStyle::kTrusted ? "trusted" : "user"},
                          {"lower", record.lower}});
}

Result<StoreRecord> decode_store_record(std::string_view text) {
    IVMM_ASSIGN(const auto json, decode_record(text, kStoreFormat, StoreRecord::kVersion));
    StoreRecord record;
    IVMM_ASSIGN(record.uuid, text_field(json, "uuid"));
    IVMM_ASSIGN(const auto style, text_field(json, "marks"));
    if (style != "trusted" && style != "user") {
        return fail("\"marks\" is \"{}\"", style);
    }
    record.style = style == "trusted" ? MarkStyle::kTrusted : MarkStyle::kUser;
    const auto lower = json.find("lower");
    if (lower == json.end() || !lower->is_array()) {
        return fail("\"lower\" is missing or not a list");
    }
    for (const auto& branch : *lower) {
        const auto* path = branch.get_ptr<const std::string*>();
        if (path == nullptr || !path->starts_with('/') || path->find('\0') != std::string::npos) {
            return fail("\"lower\" has something that is no absolute path");
        }
        record.lower.push_back(*path);
    }
    if (record.lower.size() >= Manifest::kFirstNumber) {
        return fail("\"lower\" has more than {} branches", Manifest::kFirstNumber - 1);
    }
    return record;
}

std::string encode_view_record(const ViewRecord& record) {
    return encode_record(kViewFormat, ViewRecord::kVersion, {{"top", record.top}});
}

Result<ViewRecord> decode_view_record(std::string_view text) {
    IVMM_ASSIGN(const auto json, decode_record(text, kViewFormat, ViewRecord::kVersion));
    IVMM_ASSIGN(const auto top, number_field(json, "top", Manifest::kFirstNumber, UINT32_MAX));
    return ViewRecord{static_cast<uint32_t>(top)};
}

std::string encode_next_record(const NextRecord& record) {
    return encode_record(kNextFormat, NextRecord::kVersion, {{"next", record.next}});
}

Result<NextRecord> decode_next_record(std::string_view text) {
    IVMM_ASSIGN(const auto json, decode_record(text, kNextFormat, NextRecord::kVersion));
    IVMM_ASSIGN(const auto next, number_field(json, "next", Manifest::kFirstNumber, UINT32_MAX));
    return NextRecord{static_cast<uint32_t>(next)};
}

}  // namespace ivmm::storage
