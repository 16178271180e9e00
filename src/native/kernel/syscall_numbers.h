// System call numbers, from the kernel's own headers.
#pragma once

// Before the names below: musl's headers have macros that turn some of them (prlimit64) into
// others.
#include "kernel/uapi.h"

namespace pht::sys::nr {
enum : long {
    cachestat = __NR_cachestat,
    clock_gettime = __NR_clock_gettime,
    close = __NR_close,
    exit = __NR_exit,
    faccessat = __NR_faccessat,
    fadvise64 = __NR_fadvise64,
    fallocate = __NR_fallocate,
    fchmod = __NR_fchmod,
    fchmodat = __NR_fchmodat,
    fcntl = __NR_fcntl,
    fdatasync = __NR_fdatasync,
    fstatfs = __NR_fstatfs,
    flock = __NR_flock,
    fsync = __NR_fsync,
    ftruncate = __NR_ftruncate,
    getdents64 = __NR_getdents64,
    getpid = __NR_getpid,
    getresuid = __NR_getresuid,
    ioctl = __NR_ioctl,
    lseek = __NR_lseek,
    madvise = __NR_madvise,
    memfd_create = __NR_memfd_create,
    mkdirat = __NR_mkdirat,
    mmap = __NR_mmap,
    mprotect = __NR_mprotect,
    mremap = __NR_mremap,
    munmap = __NR_munmap,
    nanosleep = __NR_nanosleep,
    openat = __NR_openat,
    openat2 = __NR_openat2,
    prctl = __NR_prctl,
    pread64 = __NR_pread64,
    prlimit64 = __NR_prlimit64,
    process_vm_readv = __NR_process_vm_readv,
    pwrite64 = __NR_pwrite64,
    read = __NR_read,
    readlinkat = __NR_readlinkat,
    renameat2 = __NR_renameat2,
    rt_sigprocmask = __NR_rt_sigprocmask,
    statfs = __NR_statfs,
    statx = __NR_statx,
    sync_file_range = __NR_sync_file_range,
    uname = __NR_uname,
    unlinkat = __NR_unlinkat,
    utimensat = __NR_utimensat,
    write = __NR_write,
};
}  // namespace pht::sys::nr
