#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "storage/layer/manifest.h"
#include "storage/layer/record.h"
#include "storage/layer/store_records.h"

/// The small files of a store, of the input's choice: refused, or what they say is what is written
/// again. The first byte of the input says whether the rest is a whole file or the line of JSON in
/// one whose checksum matches.
using namespace ivmm;
using namespace ivmm::storage;

namespace {

template <class Record>
void check(std::string_view text, Result<Record> (*decode)(std::string_view),
           std::string (*encode)(const Record&)) {
    const auto record = decode(text);
    if (!record) {
        return;
    }
    const auto again = decode(encode(*record));
    if (!again || *again != *record) {
        std::abort();
    }
}

void check_all(std::string_view text) {
    check<Manifest>(text, decode_manifest, encode_manifest);
    check<StoreRecord>(text, decode_store_record, encode_store_record);
    check<ViewRecord>(text, decode_view_record, encode_view_record);
    check<NextRecord>(text, decode_next_record, encode_next_record);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) {
        return 0;
    }
    std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
    if ((data[0] & 1) != 0) {
        check_all(text);
        return 0;
    }
    auto fields = nlohmann::json::parse(text, nullptr, false);
    if (!fields.is_object()) {
        return 0;
    }
    for (const char* format : {"ivmm-layer", "ivmm-store", "ivmm-view", "ivmm-next-layer"}) {
        check_all(encode_record(format, 1, fields));
    }
    return 0;
}
