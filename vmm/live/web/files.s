# The files of `ivmm web`, as they are, between a label and its _end (web_files.cc).
    .section .rodata

    .macro file name, path
    .global \name, \name\()_end
\name:
    .incbin "\path"
\name\()_end:
    .endm

    file ivmm_web_index_html, "vmm/live/web/index.html"
    file ivmm_web_style_css, "vmm/live/web/style.css"
    file ivmm_web_page_js, "vmm/live/web/page.js"
    file ivmm_web_icon_svg, "vmm/live/web/icon.svg"

    .section .note.GNU-stack, "", @progbits
