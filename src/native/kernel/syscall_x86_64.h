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

// Whether valgrind runs this program: it takes this sequence, which changes nothing, for a question
// (RUNNING_ON_VALGRIND of its valgrind.h).
inline bool under_valgrind() {
    const unsigned long question[6] = {0x1001, 0, 0, 0, 0, 0};
    unsigned long answer = 0;
    asm volatile(
        "rolq $3, %%rdi\n rolq $13, %%rdi\n rolq $61, %%rdi\n rolq $51, %%rdi\n"
        "xchgq %%rbx, %%rbx"
        : "+d"(answer)
        : "a"(question)
        : "cc", "memory");
    return answer != 0;
}

// x86 keeps instruction fetch coherent with stores: nothing to do.
inline void sync_instructions(unsigned long, unsigned long) {}

}  // namespace pht::sys
