// Raw system calls of aarch64: number in x8, arguments in x0-x5; see syscall(2).
#pragma once

namespace pht::sys::nr {
enum : long {
    fcntl = 25,
    ioctl = 29,
    flock = 32,
    faccessat = 48,
    ftruncate = 46,
    openat = 56,
    close = 57,
    read = 63,
    statfs = 43,
    prlimit64 = 261,
    write = 64,
    pread64 = 67,
    pwrite64 = 68,
    readlinkat = 78,
    utimensat = 88,
    exit = 93,
    nanosleep = 101,
    clock_gettime = 113,
    rt_sigprocmask = 135,
    uname = 160,
    prctl = 167,
    getresuid = 148,
    getpid = 172,
    munmap = 215,
    mremap = 216,
    mmap = 222,
    fadvise64 = 223,
    mprotect = 226,
    madvise = 233,
    process_vm_readv = 270,
    memfd_create = 279,
    openat2 = 437,
    statx = 291,
};
}  // namespace pht::sys::nr

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
