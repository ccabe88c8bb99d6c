/* What differs between machines: how the kernel is called, and the entry syscall().
 *
 * syscall() is what libc's own is: it moves its arguments, uses no stack and returns. So whatever a
 * program does with it, such as cloning with a stack of its own, works as without the shim. Only
 * bpf(2) goes another way, to bpf_call(), which gets all arguments as they are.
 */
#ifndef MACHINE_H
#define MACHINE_H

long bpf_call(long number, long cmd, long attr, long size, long common, long common_size);
long failed(long result);

#if defined(__x86_64__)

/* Linux: arch/x86/entry/syscalls/syscall_64.tbl */
enum { NR_CLOSE = 3, NR_MMAP = 9, NR_SIGPROCMASK = 14, NR_WRITEV = 20, NR_FCNTL = 72 };
enum { NR_OPENAT = 257, NR_BPF = 321 };
/* Linux: arch/x86 has asm-generic's. */
enum { O_DIRECTORY = 0200000 };

static inline long kernel(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

__asm__(".text\n"
        ".globl syscall\n"
        ".type syscall, @function\n"
        ".balign 16\n"
        "syscall:\n"
        ".cfi_startproc\n"
        "    endbr64\n"
        "    cmpl $321, %edi\n"
        "    je bpf_call\n"
        "    movq %rdi, %rax\n"
        "    movq %rsi, %rdi\n"
        "    movq %rdx, %rsi\n"
        "    movq %rcx, %rdx\n"
        "    movq %r8, %r10\n"
        "    movq %r9, %r8\n"
        "    movq 8(%rsp), %r9\n"
        "    syscall\n"
        "    cmpq $-4095, %rax\n"
        "    jae 1f\n"
        "    retq\n"
        "1:  movq %rax, %rdi\n"
        "    jmp failed\n"
        ".cfi_endproc\n"
        ".size syscall, . - syscall\n");

#elif defined(__aarch64__)

/* Linux: include/uapi/asm-generic/unistd.h */
enum { NR_FCNTL = 25, NR_OPENAT = 56, NR_CLOSE = 57, NR_WRITEV = 66, NR_SIGPROCMASK = 135 };
enum { NR_MMAP = 222, NR_BPF = 280 };
/* Linux: arch/arm64/include/uapi/asm/fcntl.h */
enum { O_DIRECTORY = 040000 };

static inline long kernel(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;

    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory", "cc");
    return x0;
}

/* hint 34 is bti c, by its number because an assembler for the first of these machines lacks it. */
__asm__(".text\n"
        ".globl syscall\n"
        ".type syscall, @function\n"
        ".balign 16\n"
        "syscall:\n"
        ".cfi_startproc\n"
        "    hint 34\n"
        "    cmp w0, 280\n"
        "    b.eq bpf_call\n"
        "    uxtw x8, w0\n"
        "    mov x0, x1\n"
        "    mov x1, x2\n"
        "    mov x2, x3\n"
        "    mov x3, x4\n"
        "    mov x4, x5\n"
        "    mov x5, x6\n"
        "    svc 0\n"
        "    cmn x0, 4095\n"
        "    b.cs failed\n"
        "    ret\n"
        ".cfi_endproc\n"
        ".size syscall, . - syscall\n");

#else
#error "the shim knows x86_64 and aarch64: another machine needs its calls and its numbers in machine.h"
#endif

#endif
