#include "kernel/scratch.h"

namespace pht {

long reserve_scratch(u64 length, u64 *address) {
    const long got = sys::mmap(0, length + kHugeSize, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (sys::failed(got)) return got;
    const auto start = static_cast<u64>(got);
    const u64 aligned = round_up(start, kHugeSize);
    if (aligned > start) sys::munmap(start, aligned - start);
    if (aligned < start + kHugeSize) sys::munmap(aligned + length, start + kHugeSize - aligned);
    *address = aligned;
    return 0;
}

long collapse(u64 address, u64 length) {
    constexpr int kTries = 4;
    long result = 0;
    for (int i = 0; i < kTries; ++i) {
        result = sys::madvise(address, length, MADV_COLLAPSE);
        if (result != -EAGAIN) break;
    }
    return result;
}

long probe_huge(int fd, u64 offset, u64 length, bool collapse_first, u64 *bytes) {
    *bytes = 0;
    if (length == 0 || length % kHugeSize || offset % kHugeSize) return -EINVAL;
    Pagemap pagemap;
    if (const long error = pagemap.open()) return error;
    Scratch scratch(length);
    if (const long error = scratch.reserve()) return error;
    const long got = sys::mmap(scratch.address(), length, PROT_READ | PROT_EXEC,
                               MAP_PRIVATE | MAP_FIXED, fd, offset);
    if (sys::failed(got)) {
        scratch.hand_on();
        return got;
    }
    // What a filter on this process refuses says nothing about the file system.
    const long advised = sys::madvise(scratch.address(), length, MADV_HUGEPAGE);
    if (sys::failed(advised)) return advised;
    const long collapsed = collapse_first ? collapse(scratch.address(), length) : 0;
    const long touched = sys::madvise(scratch.address(), length, MADV_POPULATE_READ);
    if (sys::failed(touched)) return touched;
    // No array: this runs without the engine's lock, too.
    for (u64 at = 0; at < length; at += kHugeSize) {
        u8 huge = 0;
        if (const long error = pagemap.find_huge(scratch.address() + at, 1, &huge)) return error;
        *bytes += huge ? kHugeSize : 0;
    }
    // A part is better than nothing; of nothing the reason counts.
    return *bytes ? 0 : collapsed;
}

bool is_mapped_file(int fd, u32 dev_major, u32 dev_minor, u64 inode) {
    const long at = sys::mmap(0, kPageSize, PROT_READ, MAP_PRIVATE, fd, 0);
    if (sys::failed(at)) return false;
    bool same = false;
    each_mapping([&](const Mapping &mapping) {
        const auto address = static_cast<u64>(at);
        if (mapping.end <= address) return true;
        same = mapping.start <= address && mapping.inode == inode &&
               mapping.dev_major == dev_major && mapping.dev_minor == dev_minor;
        return false;
    });
    sys::munmap(static_cast<u64>(at), kPageSize);
    return same;
}

}  // namespace pht
