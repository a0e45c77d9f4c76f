# The style sheet of the report of `ivmm evidence` (report.cc).
    .section .rodata
    .global ivmm_report_css, ivmm_report_css_end
ivmm_report_css:
    .incbin "vmm/evidence/report.css"
ivmm_report_css_end:

    .section .note.GNU-stack, "", @progbits
