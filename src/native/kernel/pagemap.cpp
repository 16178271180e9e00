#include "kernel/pagemap.h"

#include "kernel/smaps.h"

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

// Calls visit(start, end, categories) for the ranges whose pages have all of `all` (with `inverted`
// flipped) and one of `any`, if any are given; the categories are those of `told` that they have.
template <class Visit>
ErrorOr<void> scan(int fd, u64 start, u64 end, u64 inverted, u64 all, u64 any, u64 told,
                   Visit visit) {
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
        arguments.return_mask = told;
        const auto got =
            sys::uninterrupted([&] { return sys::ioctl(fd, PAGEMAP_SCAN, &arguments); });
        if (!got.ok()) return Error(got);
        for (size_t i = 0; i < got.value(); ++i)
            visit(ranges[i].start, ranges[i].end, ranges[i].categories);
        if (arguments.walk_end <= start) return Error{EIO};
        start = arguments.walk_end;
    }
    return {};
}

template <class Visit>
ErrorOr<void> scan(int fd, u64 start, u64 end, u64 inverted, u64 all, u64 any, Visit visit) {
    return scan(fd, start, end, inverted, all, any, any ? any : all,
                [&](u64 from, u64 to, u64) { visit(from, to); });
}

// Entry bits of /proc/PID/pagemap.
constexpr u64 kEntryFile = 1ull << 61, kEntrySwapped = 1ull << 62, kEntryPresent = 1ull << 63;

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

// Closed to a process that is not dumpable; anything else it cannot be is told when it is read.
ErrorOr<void> Pagemap::open() {
    if (fd_ >= 0) return {};
    const auto fd = sys::open("/proc/self/pagemap");
    if (fd.ok()) {
        fd_ = fd.value();
        return {};
    }
    if (fd.error() != EACCES && fd.error() != EPERM) return Error(fd);
    const auto smaps = sys::open("/proc/self/smaps");
    if (!smaps.ok()) return Error(smaps);
    sys::close(smaps.value());
    return {};
}

ErrorOr<void> Pagemap::find_modified(u64 start, size_t count, u8 *marks) const {
    if (!tells_pages()) return Smaps::find_modified(start, count, marks);
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
    if (!tells_pages()) return Smaps::count_present(start, count, counts);
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
    const auto mark = [&](u64 from, u64 to) {
        for (u64 at = round_up(from, kHugeSize); at + kHugeSize <= to; at += kHugeSize)
            marks[(at - start) / kHugeSize] = 1;
    };
    tells_ = tells_pages() && scan(fd_, start, end, 0, PAGE_IS_HUGE, 0, mark).ok();
    return tells_ ? ErrorOr<void>{} : Smaps::find_huge(start, count, marks);
}

ErrorOr<void> find_entries(int fd, u64 start, size_t count, u8 *marks) {
    const u64 end = start + count * kHugeSize;
    const auto small = marker(start, marks, kSmallEntries), one = marker(start, marks, kOneEntry);
    // At once: going through the page table of much text takes the longest here.
    return scan(
        fd, start, end, 0, PAGE_IS_PRESENT, 0, PAGE_IS_PRESENT | PAGE_IS_HUGE,
        [&](u64 from, u64 to, u64 is) { is &PAGE_IS_HUGE ? one(from, to) : small(from, to); });
}

ErrorOr<void> Pagemap::find_entries(u64 start, size_t count, u8 *marks) const {
    return tells_pages() ? pht::find_entries(fd_, start, count, marks)
                         : Smaps::find_entries(start, count, marks);
}

// No array: this runs without the engine's lock, too.
u64 Pagemap::huge_bytes(u64 start, u64 length) const {
    u64 sum = 0;
    const auto found = tells_pages() ? scan(fd_, start, start + length, 0, PAGE_IS_HUGE, 0,
                                            [&](u64 from, u64 to) { sum += to - from; })
                                     : ErrorOr<void>(Error{ENOTTY});
    return found.ok() ? sum : Smaps::huge_bytes(start, length);
}

}  // namespace pht
