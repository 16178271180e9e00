// The kernel's numbers, from its own headers and, where those cannot stand beside the C library's
// (linux/fcntl.h, linux/stat.h, asm/resource.h), from the C library's: macros and types, no call.
//
// A build machine's headers may be older than the kernels the program runs on: the oldest ones
// known are those of Linux 4.18 (manylinux_2_28). What came later is told here, and only here.
#pragma once

#include <asm/errno.h>
#include <asm/unistd.h>
#include <elf.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#if __has_include(<linux/openat2.h>)
#include <linux/openat2.h>
#endif
#if defined(__aarch64__)
#include <asm/hwcap.h>
#endif

// The same numbers on every architecture.
#ifndef __NR_openat2      // Linux 5.6
#define __NR_openat2 437  // NOLINT(bugprone-reserved-identifier)
#endif
#ifndef __NR_cachestat      // Linux 6.5
#define __NR_cachestat 451  // NOLINT(bugprone-reserved-identifier)
#endif
#ifndef MREMAP_DONTUNMAP  // Linux 5.7
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_COLD  // Linux 5.4
#define MADV_COLD 20
#endif
#ifndef MADV_POPULATE_READ  // Linux 5.14
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE  // Linux 5.14
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE  // Linux 6.1
#define MADV_COLLAPSE 25
#endif
#ifndef MFD_EXEC  // Linux 6.3
#define MFD_EXEC 0x0010U
#endif
#ifndef PR_SET_VMA  // Linux 5.17
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#ifndef RESOLVE_NO_MAGICLINKS  // Linux 5.6
#define RESOLVE_NO_MAGICLINKS 0x02
#define RESOLVE_IN_ROOT 0x10
#endif
#ifndef RESOLVE_CACHED  // Linux 5.12
#define RESOLVE_CACHED 0x20
#endif
// Of aarch64 (Linux 5.8); elsewhere no object asks for it.
#ifndef PROT_BTI
#define PROT_BTI 0x10
#endif
#ifndef HWCAP2_BTI
#define HWCAP2_BTI (1 << 17)
#endif
// Not every C library tells what the kernel's headers do (musl before 1.2.5).
#ifndef STATX_BASIC_STATS  // Linux 4.11
#define STATX_BASIC_STATS 0x000007ffU
#endif
#ifndef STATX_MNT_ID  // Linux 5.8
#define STATX_MNT_ID 0x00001000U
#endif
#ifndef AT_STATX_DONT_SYNC  // Linux 4.11
#define AT_STATX_DONT_SYNC 0x4000
#endif
#ifndef NT_GNU_PROPERTY_TYPE_0
#define NT_GNU_PROPERTY_TYPE_0 5
#endif
#ifndef GNU_PROPERTY_AARCH64_FEATURE_1_AND  // Linux 5.8
#define GNU_PROPERTY_AARCH64_FEATURE_1_AND 0xc0000000
#define GNU_PROPERTY_AARCH64_FEATURE_1_BTI (1U << 0)
#endif

#ifndef PAGEMAP_SCAN  // Linux 6.7
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_FILE (1 << 2)
#define PAGE_IS_PRESENT (1 << 3)
#define PAGE_IS_SWAPPED (1 << 4)
#define PAGE_IS_HUGE (1 << 6)
struct page_region {
    __u64 start, end, categories;
};
struct pm_scan_arg {
    __u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
    __u64 category_inverted, category_mask, category_anyof_mask, return_mask;
};
#endif

#ifndef PROCMAP_QUERY  // Linux 6.11
#define PROCMAP_QUERY _IOWR('f', 17, struct procmap_query)
enum procmap_query_flags {
    PROCMAP_QUERY_VMA_READABLE = 0x01,
    PROCMAP_QUERY_VMA_WRITABLE = 0x02,
    PROCMAP_QUERY_VMA_EXECUTABLE = 0x04,
    PROCMAP_QUERY_VMA_SHARED = 0x08,
    PROCMAP_QUERY_COVERING_OR_NEXT_VMA = 0x10,
};
struct procmap_query {
    __u64 size, query_flags, query_addr, vma_start, vma_end, vma_flags, vma_page_size, vma_offset;
    __u64 inode;
    __u32 dev_major, dev_minor, vma_name_size, build_id_size;
    __u64 vma_name_addr, build_id_addr;
};
#endif
