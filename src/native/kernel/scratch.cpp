#include "kernel/scratch.h"

namespace pht {

ErrorOr<u64> reserve_scratch(u64 length) {
    const auto got = sys::mmap(0, length + kHugeSize, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!got.ok()) return got;
    const u64 start = got.value(), aligned = round_up(start, kHugeSize);
    if (aligned > start) sys::munmap(start, aligned - start);
    if (aligned < start + kHugeSize) sys::munmap(aligned + length, start + kHugeSize - aligned);
    return success(aligned);
}

ErrorOr<void> touch(u64 address, u64 length) {
    const auto populated = sys::madvise(address, length, MADV_POPULATE_READ);
    if (populated.error() != EINVAL) return populated;
    // Not read by an instruction: past a file's end that would be a SIGBUS.
    u8 byte;
    for (u64 at = 0; at < length; at += kPageSize) {
        const auto got = sys::copy_memory(reinterpret_cast<u64>(&byte), address + at, 1);
        if (!got.ok()) return Error(got);
    }
    return {};
}

ErrorOr<void> touch_each(u64 address, u64 length) {
    for (u64 at = 0; at < length; at += kHugeSize) {
        const auto touched = touch(address + at, kPageSize);
        if (!touched.ok()) return touched;
    }
    return {};
}

bool knows_collapse() {
    return sys::madvise(0, 0, MADV_COLLAPSE).error() != EINVAL;
}

ErrorOr<void> collapse(u64 address, u64 length) {
    constexpr int kTries = 4;
    ErrorOr<void> result;
    for (int i = 0; i < kTries; ++i) {
        result = sys::madvise(address, length, MADV_COLLAPSE);
        if (result.error() != EAGAIN) break;
    }
    return result;
}

namespace {
int for_trials = PROT_READ | PROT_EXEC;
}  // namespace

void try_unexecuted() {
    __atomic_store_n(&for_trials, PROT_READ, __ATOMIC_RELAXED);
}

int trial_protection() {
    return __atomic_load_n(&for_trials, __ATOMIC_RELAXED);
}

ErrorOr<void> probe_huge(int fd, u64 offset, u64 length, bool collapse_first, u64 *bytes,
                         int protection) {
    *bytes = 0;
    if (length == 0 || length % kHugeSize || offset % kHugeSize) return Error{EINVAL};
    Pagemap pagemap;
    if (const auto opened = pagemap.open(); !opened.ok()) return opened;
    Scratch scratch(length);
    if (const auto mapped = scratch.map(fd, offset, protection); !mapped.ok()) return mapped;
    // What a filter on this process refuses says nothing about the file system.
    const auto advised = sys::madvise(scratch.address(), length, MADV_HUGEPAGE);
    if (!advised.ok()) return advised;
    ErrorOr<void> collapsed;
    if (collapse_first) collapsed = collapse(scratch.address(), length);
    // Of an untouched file Linux 6.1 collapses 2 MiB, and answers EINVAL.
    if (collapsed.error() == EINVAL && knows_collapse() &&
        touch_each(scratch.address(), length).ok())
        collapsed = collapse(scratch.address(), length);
    const auto touched = touch(scratch.address(), length);
    if (!touched.ok()) return touched;
    *bytes = pagemap.huge_bytes(scratch.address(), length);
    // A part is better than nothing; of nothing the reason counts.
    return *bytes ? ErrorOr<void>{} : collapsed;
}

bool is_mapped_file(int fd, u32 dev_major, u32 dev_minor, u64 inode) {
    const auto mapped = sys::mmap(0, kPageSize, PROT_READ, MAP_PRIVATE, fd, 0);
    if (!mapped.ok()) return false;
    const u64 address = mapped.value();
    bool same = false;
    const auto look = [&](const Mapping &mapping) {
        if (mapping.end <= address) return true;
        same = mapping.start <= address && mapping.inode == inode &&
               mapping.dev_major == dev_major && mapping.dev_minor == dev_minor;
        return false;
    };
    MapsQuery query(false);
    if (!query.each(address, address + kPageSize, look).ok()) (void)each_mapping(look);
    sys::munmap(address, kPageSize);
    return same;
}

}  // namespace pht
