#pragma once

namespace ivmm::test {

/// Gives the calling thread mounts of its own, so that none that it makes outlives it. False: not
/// permitted.
bool enter_own_mounts();

}  // namespace ivmm::test
