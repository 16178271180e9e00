// Raw system calls of x86_64: number in rax, arguments in rdi rsi rdx r10 r8 r9; see syscall(2).
#pragma once

namespace pht::sys::nr {
enum : long {
    read = 0,
    close = 3,
    mmap = 9,
    mprotect = 10,
    munmap = 11,
    rt_sigprocmask = 14,
    ioctl = 16,
    pread64 = 17,
    pwrite64 = 18,
    mremap = 25,
    madvise = 28,
    nanosleep = 35,
    getpid = 39,
    exit = 60,
    uname = 63,
    fcntl = 72,
    flock = 73,
    ftruncate = 77,
    getresuid = 118,
    statfs = 137,
    prctl = 157,
    fadvise64 = 221,
    clock_gettime = 228,
    openat = 257,
    readlinkat = 267,
    faccessat = 269,
    utimensat = 280,
    process_vm_readv = 310,
    memfd_create = 319,
    openat2 = 437,
    statx = 332,
    prlimit64 = 302,
    write = 1,
};
}  // namespace pht::sys::nr

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
