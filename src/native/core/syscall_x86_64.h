// Raw system calls of x86_64: number in rax, arguments in rdi rsi rdx r10 r8 r9; see syscall(2).
#pragma once

namespace pht::sys {

__attribute__((always_inline)) inline long raw(long number, long a = 0, long b = 0, long c = 0,
                                               long d = 0, long e = 0, long f = 0) {
    long result;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    register long r9 asm("r9") = f;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}

// x86 keeps instruction fetch coherent with stores: nothing to do.
inline void sync_instructions(unsigned long, unsigned long) {}

}  // namespace pht::sys
