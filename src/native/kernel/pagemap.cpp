#include "kernel/pagemap.h"

namespace pht {

namespace {

constexpr size_t kRanges = 16;

// Calls visit(start, end) for the ranges whose pages have all of `all` (with `inverted` flipped)
// and one of `any`. Returns 0 or -errno.
template <class Visit>
long scan(int fd, u64 start, u64 end, u64 inverted, u64 all, u64 any, Visit visit) {
    // Initialised for valgrind, which does not know what the call fills in.
    page_region ranges[kRanges] = {};
    while (start < end) {
        pm_scan_arg arguments = {};
        arguments.size = sizeof arguments;
        arguments.start = start;
        arguments.end = end;
        arguments.vec = reinterpret_cast<u64>(ranges);
        arguments.vec_len = kRanges;
        arguments.category_inverted = inverted;
        arguments.category_mask = all;
        arguments.category_anyof_mask = any;
        arguments.return_mask = any ? any : all;
        const long got =
            sys::uninterrupted([&] { return sys::ioctl(fd, PAGEMAP_SCAN, &arguments); });
        if (sys::failed(got)) return got;
        for (long i = 0; i < got; ++i) visit(ranges[i].start, ranges[i].end);
        if (arguments.walk_end <= start) return -EIO;
        start = arguments.walk_end;
    }
    return 0;
}

// Entry bits of /proc/PID/pagemap.
constexpr u64 kEntryFile = 1ull << 61, kEntrySwapped = 1ull << 62, kEntryPresent = 1ull << 63;

u64 smaps_kilobytes(Str line, const char *field) {
    if (!starts_with(line, str(field))) return 0;
    Cursor cursor{line.data + length(field), line.data + line.size};
    cursor.spaces();
    const u64 value = cursor.number(10);
    return cursor.ok ? value : 0;
}

// Bytes in 2 MiB pages of the mapping that starts at `start`.
long smaps_huge_bytes(u64 start, u64 *bytes) {
    LineReader reader("/proc/self/smaps");
    Str line;
    bool inside = false;
    *bytes = 0;
    while (reader.next(&line)) {
        Mapping mapping;
        if (parse_mapping(line, &mapping)) {
            if (inside) return 0;
            inside = mapping.start == start;
        } else if (inside) {
            static constexpr const char *kFields[] = {
                "AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:", "Private_Hugetlb:",
                "Shared_Hugetlb:"};
            for (const char *field : kFields) *bytes += smaps_kilobytes(line, field) * 1024;
        }
    }
    return reader.error();
}

}  // namespace

long Pagemap::find_modified(u64 start, size_t count, u8 *marks) const {
    const u64 end = start + count * kHugeSize;
    const auto mark = [&](u64 from, u64 to) {
        for (u64 at = round_down(from, kHugeSize); at < to; at += kHugeSize)
            marks[(at - start) / kHugeSize] = 1;
    };
    long result =
        scan(fd_, start, end, PAGE_IS_FILE, PAGE_IS_FILE, PAGE_IS_PRESENT | PAGE_IS_SWAPPED, mark);
    if (!sys::failed(result)) return 0;

    constexpr size_t kBatch = kHugeSize / kPageSize;
    auto *entries = static_cast<u64 *>(allocate(kBatch * sizeof(u64)));
    if (!entries) return -ENOMEM;
    result = 0;
    for (u64 at = start; at < end && !result; at += kHugeSize) {
        size_t have = 0;
        while (have < kBatch * sizeof(u64)) {
            const long got = sys::uninterrupted([&] {
                return sys::pread(fd_, reinterpret_cast<char *>(entries) + have,
                                  kBatch * sizeof(u64) - have, at / kPageSize * sizeof(u64) + have);
            });
            if (got <= 0) {
                result = got ? got : -EIO;
                break;
            }
            have += static_cast<size_t>(got);
        }
        for (size_t i = 0; i < have / sizeof(u64); ++i)
            if ((entries[i] & kEntrySwapped) ||
                ((entries[i] & kEntryPresent) && !(entries[i] & kEntryFile)))
                mark(at, at + 1);
    }
    release(entries, kBatch * sizeof(u64));
    return result;
}

long Pagemap::find_huge(u64 start, size_t count, u8 *marks) const {
    const u64 end = start + count * kHugeSize;
    const long result = scan(fd_, start, end, 0, PAGE_IS_HUGE, 0, [&](u64 from, u64 to) {
        for (u64 at = round_up(from, kHugeSize); at + kHugeSize <= to; at += kHugeSize)
            marks[(at - start) / kHugeSize] = 1;
    });
    if (!sys::failed(result)) return 0;
    u64 bytes;
    if (const long error = smaps_huge_bytes(start, &bytes)) return error;
    for (size_t i = 0; i < count; ++i) marks[i] = bytes > 0;
    return 0;
}

long find_entries(int fd, u64 start, size_t count, u8 *marks) {
    const u64 end = start + count * kHugeSize;
    const auto mark = [&](u8 what) {
        return [=](u64 from, u64 to) {
            for (u64 at = round_down(from, kHugeSize); at < to; at += kHugeSize)
                marks[(at - start) / kHugeSize] = what;
        };
    };
    const long result = scan(fd, start, end, 0, PAGE_IS_PRESENT, 0, mark(kSmallEntries));
    return sys::failed(result) ? result : scan(fd, start, end, 0, PAGE_IS_HUGE, 0, mark(kOneEntry));
}

bool Pagemap::all_huge(u64 start, u64 length) const {
    for (u64 at = start; at < start + length; at += kHugeSize) {
        u8 mark = 0;
        if (find_huge(at, 1, &mark) || !mark) return false;
    }
    return true;
}

}  // namespace pht
