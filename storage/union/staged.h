#pragma once

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/result.h"
#include "storage/layer/layer.h"

namespace ivmm::storage {

/// An object that is made in a layer's work/ and then moved to its place in one step. Removed
/// unless it was moved.
class Staged {
 public:
    explicit Staged(Layer& layer) : layer_(layer), name_(layer.unique_name()) {}
    Staged(const Staged&) = delete;
    Staged& operator=(const Staged&) = delete;
    ~Staged() {
        if (!moved_ && ::unlinkat(layer_.work(), name_.c_str(), 0) != 0 && errno == EISDIR) {
            ::unlinkat(layer_.work(), name_.c_str(), AT_REMOVEDIR);
        }
    }

    At at() const { return {layer_.work(), name_.c_str()}; }

    /// `flags`: of renameat2(2). After RENAME_EXCHANGE, this is what was exchanged for it.
    PosixResult<void> move_to(At target, unsigned flags) {
        if (::renameat2(layer_.work(), name_.c_str(), target.dir, target.path, flags) != 0) {
            return last_posix_error();
        }
        moved_ = (flags & RENAME_EXCHANGE) == 0;
        return {};
    }

 private:
    Layer& layer_;
    std::string name_;
    bool moved_ = false;
};

}  // namespace ivmm::storage
