#include "vmm/live/web_files.h"

#include <algorithm>
#include <array>

// What web/files.s has between them.
extern "C" {
extern const char ivmm_web_index_html;
extern const char ivmm_web_index_html_end;
extern const char ivmm_web_style_css;
extern const char ivmm_web_style_css_end;
extern const char ivmm_web_page_js;
extern const char ivmm_web_page_js_end;
extern const char ivmm_web_icon_svg;
extern const char ivmm_web_icon_svg_end;
}

namespace ivmm::live {
namespace {

struct File {
    const char* path;
    const char* type;
    const char* begin;
    const char* end;
};

const std::array kFiles = {
    File{"/", "text/html; charset=utf-8", &ivmm_web_index_html, &ivmm_web_index_html_end},
    File{"/style.css", "text/css; charset=utf-8", &ivmm_web_style_css, &ivmm_web_style_css_end},
    File{"/page.js", "text/javascript; charset=utf-8", &ivmm_web_page_js, &ivmm_web_page_js_end},
    File{"/icon.svg", "image/svg+xml", &ivmm_web_icon_svg, &ivmm_web_icon_svg_end},
};

}  // namespace

std::optional<Page> web_file(const std::string& path) {
    const auto found = std::ranges::find(kFiles, path, &File::path);
    return found == kFiles.end()
               ? std::optional<Page>()
               : std::optional(Page{found->type, std::string(found->begin, found->end)});
}

}  // namespace ivmm::live
