#pragma once

#include <functional>

#include "net/port.h"

namespace ivmm::net {

/// Whether a receiver with these abilities takes the frame as it is.
bool takes(const Offloads& able, const VnetHeader& vnet);

/// Makes complete frames of one whose checksum is missing or that is to be cut into segments, and
/// hands them out one by one, until `send` returns false. The header must be honest.
void complete(const Frame& frame, const Headers& headers,
              const std::function<bool(const Frame&)>& send);

}  // namespace ivmm::net
