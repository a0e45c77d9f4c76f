#include "storage/layer/manifest.h"

#include "storage/layer/record.h"

namespace ivmm::storage {

namespace {

constexpr const char* kFormat = "ivmm-layer";

}  // namespace

std::string encode_manifest(const Manifest& manifest) {
    return encode_record(kFormat, Manifest::kVersion,
                         {{"uuid", manifest.uuid},
                          {"number", manifest.number},
                          {"parent", manifest.parent},
                          {"state", manifest.state == Manifest::State::kSealed ? "sealed" : "open"},
                          {"generation", manifest.generation}});
}

Result<Manifest> decode_manifest(std::string_view text) {
    IVMM_ASSIGN(const auto record, decode_record(text, kFormat, Manifest::kVersion));
    Manifest manifest;
    IVMM_ASSIGN(manifest.uuid, text_field(record, "uuid"));
    IVMM_ASSIGN(const auto number,
                number_field(record, "number", Manifest::kFirstNumber, UINT32_MAX));
    // A layer is younger than its parent: so no chain of parents is endless.
    IVMM_ASSIGN(const auto parent, number_field(record, "parent", 0, number - 1));
    if (parent != 0 && parent < Manifest::kFirstNumber) {
        return fail("\"parent\" is {}, which is no layer of a store", parent);
    }
    manifest.number = static_cast<uint32_t>(number);
    manifest.parent = static_cast<uint32_t>(parent);
    IVMM_ASSIGN(const auto state, text_field(record, "state"));
    if (state != "open" && state != "sealed") {
        return fail("\"state\" is \"{}\"", state);
    }
    manifest.state = state == "sealed" ? Manifest::State::kSealed : Manifest::State::kOpen;
    IVMM_ASSIGN(manifest.generation, number_field(record, "generation", 0, UINT64_MAX));
    return manifest;
}

}  // namespace ivmm::storage
