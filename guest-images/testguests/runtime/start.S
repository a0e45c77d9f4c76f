// From the PVH entry point (32-bit protected mode, no paging) to ring 3 in long mode, and everything
// that runs in ring 0.
//
// Some hosts emulate ring-0 code one slow instruction at a time and run ring-3 code natively. So the
// tables are built by the assembler, ring 0 is left after some thirty instructions, and it is entered
// again only for interrupts (count, acknowledge, return) and for the ring0() trap.

#include "layout.h"

#define CR0_VALUE 0x80010033  // PG, WP, NE, ET, MP, PE
#define CR4_VALUE 0x620       // PAE, OSFXSR, OSXMMEXCPT
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define RFLAGS 0x2

        .section .note.pvh, "a", @note
        .align 4
        .long 4, 4, 18  // name size, value size, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long start32

        .text
        .code32
        .globl start32, boot_enter
start32:
        movl %ebx, start_info
        movl $tss, %eax  // the descriptor's base is scattered, which no relocation can express
        movw %ax, gdt + SEL_TSS + 2
        shrl $16, %eax
        movb %al, gdt + SEL_TSS + 4
        movb %ah, gdt + SEL_TSS + 7
        lgdt gdt_pointer
boot_enter:  // its number, stack and entry point are in boot_cpu, boot_stack and boot_entry
        movl $pml4, %eax
        movl %eax, %cr3
        movl $CR4_VALUE, %eax
        movl %eax, %cr4
        movl $MSR_EFER, %ecx
        movl $EFER_LME, %eax
        xorl %edx, %edx
        wrmsr
        movl $CR0_VALUE, %eax
        movl %eax, %cr0
        ljmp $SEL_CODE64, $start64

        .code64
start64:
        movl $SEL_DATA, %eax
        movl %eax, %ss
        movl $ring0_scratch_top, %esp
        lidt idt_pointer
        movl boot_cpu, %eax
        shll $4, %eax
        addl $SEL_TSS, %eax
        ltr %ax
        pushq $SEL_USER_DATA
        pushq boot_stack
        pushq $RFLAGS
        pushq $SEL_USER_CODE
        pushq boot_entry
        iretq

        // Started CPUs: real mode at TRAMPOLINE, where this is copied to; then the way of the first CPU.
        .code16
        .globl trampoline, trampoline_end
trampoline:
        cli
        lgdtl %cs:(trampoline_gdt_pointer - trampoline)
        movl $0x11, %eax
        movl %eax, %cr0
        ljmpl $SEL_CODE32, $trampoline32
        .align 4
trampoline_gdt_pointer:
        .word gdt_end - gdt - 1
        .long gdt
trampoline_end:
        .code32
trampoline32:
        movl $SEL_DATA, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        jmp boot_enter
        .code64

        // Interrupts: one stub a vector from VEC_IRQ to VEC_END.
        .globl irq_stubs, spurious_stub
        .align STUB_SIZE
irq_stubs:
        .set vector, VEC_IRQ
        .rept VEC_END - VEC_IRQ
        .align STUB_SIZE
        incq irq_count + 8 * vector
        movl $0, LAPIC_EOI_ALIAS
        iretq
        .set vector, vector + 1
        .endr
        .align STUB_SIZE
spurious_stub:
        iretq

        // Exceptions: one stub a vector from 0 to 31; the CPU pushes an error code for 8, 10-14, 17,
        // 21, 29 and 30.
        .globl exception_stubs
        .align STUB_SIZE
exception_stubs:
        .set vector, 0
        .rept 32
        .align STUB_SIZE
        .if ((0x60227d00 >> vector) & 1) == 0
        pushq $0
        .endif
        pushq $vector
        jmp exception
        .set vector, vector + 1
        .endr

exception:  // stack: vector, error code, rip, cs, rflags, rsp, ss
        testb $3, 24(%rsp)
        jz exception_in_ring0
        popq fault_vector
        popq fault_error
        popq fault_rip
        movq %cr2, %rax
        movq %rax, fault_cr2
        pushq $fault_report  // a fault of the guest itself is told from ring 3, and ends it
        iretq
exception_in_ring0:  // makes the ring0() call under way return with the vector
        popq %rdx
        incl %edx
        orq $0xfff, %rsp  // a ring-0 stack is one page, the frame of the trap at its end
        subq $39, %rsp
        iretq

        // The ring0() trap. It is an invalid opcode, as that reaches ring 0 on every host; software
        // interrupts do not.
        .globl ring0_stub, ring0
ring0_stub:
        cmpq $ring0_trap, (%rsp)
        jne exception_stubs + 6 * STUB_SIZE
        addq $2, (%rsp)
        callq *%rax
        xorl %edx, %edx
        iretq

ring0:  // struct ring0_result ring0(function, a, b): the function gets a and b
        movq %rdi, %rax
        movq %rsi, %rdi
        movq %rdx, %rsi
ring0_trap:
        ud2
        retq

        .globl ring0_rdmsr, ring0_wrmsr, ring0_wait, ring0_enable_irqs
ring0_rdmsr:  // (msr) -> value
        movl %edi, %ecx
        rdmsr
        shlq $32, %rdx
        orq %rdx, %rax
        retq
ring0_wrmsr:  // (msr, value)
        movl %edi, %ecx
        movl %esi, %eax
        movq %rsi, %rdx
        shrq $32, %rdx
        wrmsr
        retq
ring0_wait:  // (struct irq_waiting): sleeps unless the counter has moved on, then acknowledges at the device
        movq (%rdi), %rax
        movq 8(%rdi), %rcx
        cmpq %rcx, (%rax)
        jne 1f
        sti
        hlt
1:      movq 16(%rdi), %rax
        testq %rax, %rax
        jz 2f
        movl $3, (%rax)
2:      retq
ring0_enable_irqs:  // changes the flags that the trap returns to
        orl $0x200, 24(%rsp)
        retq

        .data
        .globl gdt, boot_cpu, boot_stack, boot_entry, start_info, tss
        .align 16
gdt:
        .quad 0
        .quad 0x00cf9b000000ffff  // SEL_CODE32
        .quad 0x00cf93000000ffff  // SEL_DATA
        .quad 0x00af9b000000ffff  // SEL_CODE64
        .quad 0x00cff3000000ffff  // SEL_USER_DATA
        .quad 0x00affb000000ffff  // SEL_USER_CODE
        .rept MAX_CPUS
        .quad 0x0000890000000000 + TSS_SIZE - 1
        .quad 0
        .endr
gdt_end:
gdt_pointer:
        .word gdt_end - gdt - 1
        .quad gdt
        .align 4
idt_pointer:
        .word 256 * 16 - 1
        .quad idt
        .align 8
boot_stack:
        .quad first_stack_top
boot_entry:
        .quad runtime_main
boot_cpu:
        .long 0
start_info:
        .long 0
        .align 16
tss:  // struct tss[MAX_CPUS]; the ring-0 stack and the I/O permission map
        .set cpu, 0
        .rept MAX_CPUS
        .long 0
        .quad ring0_stacks + 4096 * (cpu + 1)
        .fill TSS_FIXED - 14, 1, 0
        .word TSS_FIXED  // where the I/O permission map begins
        .fill IO_PORTS / 8, 1, 0
        .quad -1
        .set cpu, cpu + 1
        .endr

        // Identity map of [0, 8 GiB) in 2 MiB pages, open to ring 3; accessed and dirty are set so
        // that no walk writes.
        .section .data.tables, "aw"
        .align 4096
pml4:
        .quad pdpt + 0x27
        .fill 510, 8, 0
        .quad pdpt + 0x27
pdpt:
        .set gib, 0
        .rept 8
        .quad pd + 4096 * gib + 0x27
        .set gib, gib + 1
        .endr
        .fill 503, 8, 0
        .quad pd + 4096 * 3 + 0x27  // the alias of [3 GiB, 4 GiB)
pd:
        .set page, 0
        .rept 8 * 512
        .quad (page << 21) + 0xe7
        .set page, page + 1
        .endr

        .bss
        .globl idt, irq_count, ring0_stacks, fault_vector, fault_error, fault_rip, fault_cr2
        .align 4096
idt:
        .fill 4096
ring0_stacks:
        .fill 4096 * MAX_CPUS
first_stack:
        .fill 16384
first_stack_top:
irq_count:  // by vector
        .fill 8 * 256
fault_vector:
        .quad 0
fault_error:
        .quad 0
fault_rip:
        .quad 0
fault_cr2:
        .quad 0
        .fill 64  // only for the way from boot to ring 3
ring0_scratch_top:

        .section .note.GNU-stack, "", @progbits
