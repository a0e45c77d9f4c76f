#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "storage/union/lookup.h"

namespace ivmm::storage {

/// The union of a run of layers, with what it takes from below the run told apart: not by the
/// places there, but by one path in the union of the layers below, as marks need it.
class RunTree {
 public:
    struct Below {
        std::string path;           ///< in the union of the layers below the run; "" is its root
        std::vector<Place> places;  ///< as in Found
    };
    /// What a name stands for. Nothing: neither `parts` nor `below`.
    struct Node {
        struct stat attributes {};  ///< of the topmost object
        /// In the run: of a directory, topmost first; of anything else, its one place.
        std::vector<Place> parts;
        /// Of a directory, its lower part; of anything else only if it has no place in the run.
        std::optional<Below> below;

        bool exists() const { return !parts.empty() || below; }
        bool is_directory() const { return S_ISDIR(attributes.st_mode); }
    };

    /// `stack`: `count` layers of a run, topmost first, and all that are below it.
    RunTree(StackSpan stack, size_t count)
        : stack_(stack), run_(stack.first(count)), below_(stack.subspan(count)) {}

    StackSpan stack() const { return stack_; }
    StackSpan run() const { return run_; }
    StackSpan below() const { return below_; }

    PosixResult<Node> root() const { return root_of(stack_); }
    PosixResult<Node> lookup(const Node& directory, std::string_view name) const {
        return lookup_in(stack_, directory, name);
    }
    /// The object that a path stands for in the union of the layers below one of the run.
    PosixResult<Node> resolve(const Layer& layer, std::string_view path) const {
        return resolve_in(storage::below(stack_, &layer), path);
    }
    /// Whether a name would show in a directory if the run had nothing of this name.
    PosixResult<bool> shows_from_below(const Node& directory, std::string_view name) const;

 private:
    // `stack`: the union that is looked at, a part of stack_ down to its bottom.
    PosixResult<Node> root_of(StackSpan stack) const;
    PosixResult<Node> lookup_in(StackSpan stack, const Node& directory,
                                std::string_view name) const;
    PosixResult<Node> resolve_in(StackSpan stack, std::string_view path) const;
    PosixResult<void> add_below(StackSpan stack, const Below& directory, std::string_view name,
                                Node& node) const;
    bool in_run(const Layer* layer) const;

    StackSpan stack_, run_, below_;
};

}  // namespace ivmm::storage
