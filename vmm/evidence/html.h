#pragma once

#include <string>
#include <string_view>

namespace ivmm::evidence {

/// Somebody's text in a page: nothing in it is taken for HTML, and what is no character is shown
/// as one that is.
std::string escape_html(std::string_view text);

}  // namespace ivmm::evidence
