#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ivmm::storage {

/// What a layer of a store says about itself: layers/N/MANIFEST. One line of JSON, then a line with
/// its XXH3-64. A manifest that is damaged or of a newer format is refused with the reason.
struct Manifest {
    enum class State {
        kOpen,    ///< spare, or written by a view
        kSealed,  ///< frozen, and all of it on the medium
    };
    static constexpr uint32_t kVersion = 1;
    static constexpr uint32_t kFirstNumber = 256;

    std::string uuid;
    uint32_t number = 0;
    uint32_t parent = 0;  ///< number of the layer below; 0: the store's lower branches are
    State state = State::kOpen;
    uint64_t generation = 0;  ///< grows by one each time the file is replaced

    bool operator==(const Manifest&) const = default;
};

std::string encode_manifest(const Manifest& manifest);
/// Errors: what is wrong with the text; the caller names the file.
Result<Manifest> decode_manifest(std::string_view text);

}  // namespace ivmm::storage
