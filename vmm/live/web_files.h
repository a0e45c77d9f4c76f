#pragma once

#include <optional>
#include <string>

#include "vmm/live/http_server.h"

namespace ivmm::live {

/// A file of the page that `ivmm web` shows: "/", "/style.css" and so on. They are in this program.
std::optional<Page> web_file(const std::string& path);

}  // namespace ivmm::live
