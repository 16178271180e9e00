#include "kernel/pagemap.h"

namespace pht {

namespace {

constexpr size_t kRanges = 16;

// Marks the 2 MiB pages that a range touches, of those from `start` on.
auto marker(u64 start, u8 *marks, u8 what) {
    return [=](u64 from, u64 to) {
        for (u64 at = round_down(from, kHugeSize); at < to; at += kHugeSize)
            marks[(at - start) / kHugeSize] = what;
    };
}

// Calls visit(start, end) for the ranges whose pages have all of `all` (with `inverted` flipped)
// and one of `any`.
template <class Visit>
ErrorOr<void> scan(int fd, u64 start, u64 end, u64 inverted, u64 all, u64 any, Visit visit) {
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
        const auto got =
            sys::uninterrupted([&] { return sys::ioctl(fd, PAGEMAP_SCAN, &arguments); });
        if (!got.ok()) return Error(got);
        for (size_t i = 0; i < got.value(); ++i) visit(ranges[i].start, ranges[i].end);
        if (arguments.walk_end <= start) return Error{EIO};
        start = arguments.walk_end;
    }
    return {};
}

// Entry bits of /proc/PID/pagemap.
constexpr u64 kEntryFile = 1ull << 61, kEntrySwapped = 1ull << 62, kEntryPresent = 1ull << 63;

// Bytes in 2 MiB pages of the mapping that starts at `start`.
ErrorOr<u64> smaps_huge_bytes(u64 start) {
    bool inside = false;
    u64 bytes = 0;
    const auto read = each_line("/proc/self/smaps", [&](Str line) {
        static constexpr const char *kFields[] = {
            "AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:", "Private_Hugetlb:",
            "Shared_Hugetlb:"};
        Mapping mapping;
        if (parse_mapping(line, &mapping)) {
            if (inside) return false;
            inside = mapping.start == start;
        }
        u64 kib;
        for (const char *field : kFields)
            if (inside && read_field(line, field, &kib)) bytes += kib * 1024;
        return true;
    });
    if (!read.ok()) return Error(read);
    return success(bytes);
}

}  // namespace

namespace {

// Calls visit(address, entry) for each small page, with its entry of pagemap.
template <class Visit> ErrorOr<void> each_page(int fd, u64 start, u64 end, Visit visit) {
    constexpr size_t kBatch = kHugeSize / kPageSize;
    auto *entries = static_cast<u64 *>(map_memory(kBatch * sizeof(u64)));
    if (!entries) return Error{ENOMEM};
    ErrorOr<void> result;
    for (u64 at = start; at < end && result.ok(); at += kHugeSize) {
        const auto got =
            sys::read_at(fd, entries, kBatch * sizeof(u64), at / kPageSize * sizeof(u64));
        if (!got.ok()) result = Error(got);
        if (got.ok() && got.value() < kBatch * sizeof(u64)) result = Error{EIO};
        for (size_t i = 0; i < kBatch && result.ok(); ++i) visit(at + i * kPageSize, entries[i]);
    }
    unmap_memory(entries, kBatch * sizeof(u64));
    return result;
}

}  // namespace

ErrorOr<void> Pagemap::find_modified(u64 start, size_t count, u8 *marks) const {
    const u64 end = start + count * kHugeSize;
    const auto mark = marker(start, marks, 1);
    const auto found =
        scan(fd_, start, end, PAGE_IS_FILE, PAGE_IS_FILE, PAGE_IS_PRESENT | PAGE_IS_SWAPPED, mark);
    if (found.ok()) return found;
    return each_page(fd_, start, end, [&](u64 at, u64 entry) {
        if ((entry & kEntrySwapped) || ((entry & kEntryPresent) && !(entry & kEntryFile)))
            mark(at, at + 1);
    });
}

ErrorOr<void> Pagemap::count_present(u64 start, size_t count, u16 *counts) const {
    const u64 end = start + count * kHugeSize;
    for (size_t i = 0; i < count; ++i) counts[i] = 0;
    const auto add = [&](u64 from, u64 to) {
        while (from < to) {
            const u64 stop = min(to, round_down(from, kHugeSize) + kHugeSize);
            u16 &sum = counts[(from - start) / kHugeSize];
            sum = static_cast<u16>(sum + (stop - from) / kPageSize);
            from = stop;
        }
    };
    const auto counted = scan(fd_, start, end, 0, PAGE_IS_PRESENT, 0, add);
    if (counted.ok()) return counted;
    for (size_t i = 0; i < count; ++i) counts[i] = 0;
    return each_page(fd_, start, end, [&](u64 at, u64 entry) {
        if (entry & kEntryPresent) add(at, at + kPageSize);
    });
}

ErrorOr<void> Pagemap::find_huge(u64 start, size_t count, u8 *marks) const {
    const u64 end = start + count * kHugeSize;
    const auto found = scan(fd_, start, end, 0, PAGE_IS_HUGE, 0, [&](u64 from, u64 to) {
        for (u64 at = round_up(from, kHugeSize); at + kHugeSize <= to; at += kHugeSize)
            marks[(at - start) / kHugeSize] = 1;
    });
    tells_ = found.ok();
    if (found.ok()) return found;
    const auto bytes = smaps_huge_bytes(start);
    if (!bytes.ok()) return Error(bytes);
    for (size_t i = 0; i < count; ++i) marks[i] = bytes.value() > 0;
    return {};
}

ErrorOr<void> find_entries(int fd, u64 start, size_t count, u8 *marks) {
    const u64 end = start + count * kHugeSize;
    const auto small = marker(start, marks, kSmallEntries), one = marker(start, marks, kOneEntry);
    const auto result = scan(fd, start, end, 0, PAGE_IS_PRESENT, 0, small);
    return !result.ok() ? result : scan(fd, start, end, 0, PAGE_IS_HUGE, 0, one);
}

u64 Pagemap::huge_bytes(u64 start, u64 length) const {
    u64 sum = 0;
    const auto found = scan(fd_, start, start + length, 0, PAGE_IS_HUGE, 0,
                            [&](u64 from, u64 to) { sum += to - from; });
    if (found.ok()) return sum;
    const auto bytes = smaps_huge_bytes(start);
    return bytes.ok() ? min(bytes.value(), length) : 0;
}

}  // namespace pht
