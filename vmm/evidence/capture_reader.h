#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "net/switch.h"

namespace ivmm::evidence {

/// A frame of a clone's capture; as long as the callback runs.
struct CapturedFrame {
    uint64_t time_ns = 0;  ///< since 1970
    net::Place place = net::Place::kUplink;
    bool to_clone = false;
    ConstByteSpan bytes;
    std::string_view comment;  ///< what has become of it
};

/// Reads a file of net::Capture (pcapng), as far as there are whole blocks: the switch may be
/// writing it. Errors: it cannot be read; it is something else.
Result<void> read_capture(const std::string& path,
                          const std::function<void(const CapturedFrame&)>& on_frame);

}  // namespace ivmm::evidence
