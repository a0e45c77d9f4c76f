#pragma once

#include <string>
#include <vector>

#include "vmm/console/raw_terminal.h"
#include "vmm/live/top_picture.h"

namespace ivmm::live {

/// The terminal of standard output, filled with pictures; the destructor shows again what was there
/// before, and so does the end of the process by a fatal signal. At most one at a time.
class TopScreen {
 public:
    TopScreen();
    TopScreen(const TopScreen&) = delete;
    TopScreen& operator=(const TopScreen&) = delete;
    ~TopScreen();

    /// A line at the top, the picture, and a line at the bottom; cut to what fits.
    void show(const std::string& head, const std::vector<PictureLine>& picture,
              const std::string& foot);

 private:
    RawTerminal raw_;
};

}  // namespace ivmm::live
