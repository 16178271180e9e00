// Raw system calls of aarch64: number in x8, arguments in x0-x5; see syscall(2).
#pragma once

namespace pht::sys {

__attribute__((always_inline)) inline long raw(long number, long a = 0, long b = 0, long c = 0,
                                               long d = 0, long e = 0, long f = 0) {
    register long x8 asm("x8") = number;
    register long x0 asm("x0") = a;
    register long x1 asm("x1") = b;
    register long x2 asm("x2") = c;
    register long x3 asm("x3") = d;
    register long x4 asm("x4") = e;
    register long x5 asm("x5") = f;
    asm volatile("svc #0"
                 : "+r"(x0)
                 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                 : "memory", "cc");
    return x0;
}

// Whether valgrind runs this program: it takes this sequence, which changes nothing, for a question
// (RUNNING_ON_VALGRIND of its valgrind.h).
inline bool under_valgrind() {
    const unsigned long question[6] = {0x1001, 0, 0, 0, 0, 0};
    register unsigned long x3 asm("x3") = 0;
    register const unsigned long *x4 asm("x4") = question;
    asm volatile(
        "ror x12, x12, #3\n ror x12, x12, #13\n ror x12, x12, #51\n ror x12, x12, #61\n"
        "orr x10, x10, x10"
        : "+r"(x3)
        : "r"(x4)
        : "cc", "memory", "x12");
    return x3 != 0;
}

// Makes freshly copied instructions visible to instruction fetch: clean the data cache and
// invalidate the instruction cache to the point of unification (Arm ARM, B2.4.4). The kernel
// does the same when it first maps a new page executable; doing it here costs little and does not
// depend on that.
inline void sync_instructions(unsigned long start, unsigned long size) {
    unsigned long type;
    asm volatile("mrs %0, ctr_el0" : "=r"(type));
    const unsigned long dline = 4ul << ((type >> 16) & 15);
    const unsigned long iline = 4ul << (type & 15);
    for (unsigned long at = start & ~(dline - 1); at < start + size; at += dline)
        asm volatile("dc cvau, %0" ::"r"(at) : "memory");
    asm volatile("dsb ish" ::: "memory");
    for (unsigned long at = start & ~(iline - 1); at < start + size; at += iline)
        asm volatile("ic ivau, %0" ::"r"(at) : "memory");
    asm volatile("dsb ish\nisb" ::: "memory");
}

}  // namespace pht::sys
