// The least guest: its first instructions show one byte on the serial port, then it ends the machine.
// It measures the time from the start of a VMM to its guest's first instruction, so it carries no
// runtime at all.

        .section .note.pvh, "a", @note
        .align 4
        .long 4, 4, 18  // name size, value size, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long start32

        .text
        .code32
        .globl start32
start32:
        movb $'!', %al
        movw $0x3f8, %dx
        outb %al, %dx
        movb $0x34, %al  // the ACPI sleep control register: power off
        movw $0x600, %dx
        outb %al, %dx
        movw $0xf4, %dx  // where that is not heard: QEMU's isa-debug-exit
        outb %al, %dx
        lidt no_idt      // and at last a triple fault
        ud2
        .align 8
no_idt:
        .fill 6

        .section .note.GNU-stack, "", @progbits
