#include "storage/layer/store_paths.h"

#include <sys/file.h>

#include <algorithm>
#include <charconv>

#include "storage/layer/files.h"
#include "storage/layer/record.h"

namespace ivmm::storage {

namespace {

/// Reads and decodes one of the small files.
template <class Record>
Result<Record> read_record(const StoreDirs& store, int dir, const std::string& name,
                           const std::string& file, Result<Record> (*decode)(std::string_view)) {
    const auto text = read_small_file(dir, name.c_str(), kMaxRecordSize);
    if (!text) {
        return store_error(store, file, text.error());
    }
    auto record = decode(*text);
    if (record) {
        return record;
    }
    auto error = record.error();
    if (error.kind == ErrorKind::kFailed) {
        error.message +=
            fmt::format("; `ivmm overlay check {}` says what can be mended", store.path);
    }
    return annotate(std::move(error), store.path + "/" + file);
}

}  // namespace

Unexpected store_error(const StoreDirs& store, const std::string& file, Errno error) {
    return {{ErrorKind::kFailed, error.code,
             fmt::format("{}/{}: {}", store.path, file, error_text(error.code))}};
}

Result<StoreRecord> read_store_record(const StoreDirs& store) {
    return read_record(store, store.root.get(), "STORE", "STORE", decode_store_record);
}

Result<ViewRecord> read_view_record(const StoreDirs& store, const std::string& name) {
    return read_record(store, store.views.get(), name, "views/" + name, decode_view_record);
}

Result<Manifest> read_manifest(const StoreDirs& store, const std::string& uuid, uint32_t number) {
    const auto name = std::to_string(number);
    const auto directory = open_directory(store.layers.get(), name.c_str());
    if (!directory) {
        return store_error(store, "layers/" + name + "/MANIFEST", directory.error());
    }
    return read_manifest(store, uuid, number, directory->get());
}

Result<Manifest> read_manifest(const StoreDirs& store, const std::string& uuid, uint32_t number,
                               int directory) {
    const auto file = fmt::format("layers/{}/MANIFEST", number);
    IVMM_ASSIGN(auto manifest, read_record(store, directory, "MANIFEST", file, decode_manifest));
    if (manifest.number != number || manifest.uuid != uuid) {
        return fail("{}/{}: it is of layer {} of store {}", store.path, file, manifest.number,
                    manifest.uuid);
    }
    return manifest;
}

Result<uint32_t> reserve_numbers(const StoreDirs& store, uint32_t count) {
    // A description of its own, so that threads exclude each other, too.
    const auto lock = open_directory(store.layers.get(), ".");
    if (!lock) {
        return store_error(store, "layers", lock.error());
    }
    while (::flock(lock->get(), LOCK_EX) != 0) {
        if (errno != EINTR) {
            return store_error(store, "layers", {errno});
        }
    }
    // The file is there from the first layer on; the layers themselves are looked at so that its
    // loss can be mended by deleting it.
    uint32_t next = Manifest::kFirstNumber;
    const auto seen = for_each_entry(
        store.layers.get(), [&](const char* name, unsigned char /*type*/) -> PosixResult<void> {
            if (const auto number = layer_number(name); number && *number < UINT32_MAX) {
                next = std::max(next, *number + 1);
            }
            return {};
        });
    if (!seen) {
        return store_error(store, "layers", seen.error());
    }
    const auto record =
        read_record(store, store.layers.get(), "NEXT", "layers/NEXT", decode_next_record);
    if (record) {
        next = std::max(next, record->next);
    } else if (record.error().code != ENOENT) {
        return Unexpected{record.error()};
    }
    if (next > UINT32_MAX - count) {
        return fail("{}: no layer numbers are left", store.path);
    }
    if (const auto written =
            replace_small_file(store.layers.get(), "NEXT", encode_next_record({next + count}));
        !written) {
        return store_error(store, "layers/NEXT", written.error());
    }
    return next;
}

std::string spare_view_name(uint32_t number) {
    return fmt::format(".{}.next", number);
}

std::optional<uint32_t> layer_number(const std::string& name) {
    uint32_t number = 0;
    const char* const end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data(), end, number);
    if (parsed.ec != std::errc() || parsed.ptr != end || number < Manifest::kFirstNumber ||
        name.front() == '0') {
        return std::nullopt;
    }
    return number;
}

}  // namespace ivmm::storage
