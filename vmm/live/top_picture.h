#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vmm/control/json_rpc.h"

namespace ivmm::live {

/// A line of the picture, ASCII without control characters.
struct PictureLine {
    enum class Style { kPlain, kTitle, kSelected, kDim, kAlarm };
    std::string text;
    Style style = Style::kPlain;
    bool operator==(const PictureLine&) const = default;
};

/// What `ivmm top` shows of a host_state().
struct TopView {
    const rpc::Json* state = nullptr;   ///< never null when drawn
    const rpc::Json* before = nullptr;  ///< an earlier one, for what happens in a second; or null
    double seconds = 0;                 ///< between the two
    std::string selected;               ///< name of a guest; or empty
};

/// The names of guests and of clones that have ended, in the order of the picture: each clone below
/// its primary.
std::vector<std::string> top_names(const rpc::Json& state);

/// All there is to show, as wide as it gets.
std::vector<PictureLine> draw_top(const TopView& view);

/// What of it fits: at most `height` lines, cut after `width`; the selected one is among them.
std::vector<PictureLine> fit(std::vector<PictureLine> lines, size_t width, size_t height);

}  // namespace ivmm::live
