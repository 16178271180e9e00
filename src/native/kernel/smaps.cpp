#include "kernel/smaps.h"

#include "kernel/pagemap.h"

namespace pht {

namespace {

// Of so many bytes one page is asked for: a fault maps 64 KiB around it, where that is cached.
constexpr u64 kStride = 4 * kPageSize;
constexpr size_t kSamples = kHugeSize / kStride;

// Calls visit(i, how many of its samples are present) for each 2 MiB page. EPERM under a filter,
// which may kill for a call that few make.
template <class Visit> ErrorOr<void> each_sampled(u64 start, size_t count, Visit visit) {
    u64 pages[kSamples];
    int nodes[kSamples];
    const auto mode = sys::seccomp_mode();
    if (!mode.ok() || mode.value() != 0) return Error{EPERM};
    for (size_t i = 0; i < count; ++i) {
        for (size_t k = 0; k < kSamples; ++k) pages[k] = start + i * kHugeSize + k * kStride;
        const auto asked = sys::find_nodes(pages, kSamples, nodes);
        if (!asked.ok()) return asked;
        size_t present = 0;
        for (const int node : nodes) present += node >= 0;
        visit(i, present);
    }
    return {};
}

// Calls visit(first, last, usage) for every mapping with the 2 MiB pages that it touches, of those
// from `start` on.
template <class Visit> ErrorOr<void> each_touched(u64 start, size_t count, Visit visit) {
    const u64 end = start + count * kHugeSize;
    return each_usage(start, end, [&](const Usage &usage) {
        const u64 from = max(usage.start, start), to = min(usage.end, end);
        visit((from - start) / kHugeSize, (to - 1 - start) / kHugeSize, usage);
    });
}

}  // namespace

bool add_field(Str line, Usage *usage) {
    struct Field {
        const char *name;
        u64 Usage::*member;
        bool expected;
    };
    static constexpr Field kFields[] = {
        {"Rss:", &Usage::resident, false},         {"Anonymous:", &Usage::anonymous, true},
        {"AnonHugePages:", &Usage::huge, false},   {"ShmemPmdMapped:", &Usage::huge, false},
        {"FilePmdMapped:", &Usage::huge, false},   {"Shared_Hugetlb:", &Usage::huge, false},
        {"Private_Hugetlb:", &Usage::huge, false}, {"Swap:", &Usage::swapped, true}};
    u64 kib;
    for (const Field &field : kFields) {
        if (!read_field(line, field.name, &kib)) continue;
        usage->*field.member += kib * 1024;
        return field.expected;
    }
    return false;
}

ErrorOr<void> Smaps::find_modified(u64 start, size_t count, u8 *marks) {
    size_t next = 0;  // the first page that no mapping was seen in
    const auto read =
        each_touched(start, count, [&](size_t first, size_t last, const Usage &usage) {
            for (size_t i = next; i < first; ++i) marks[i] = 1;
            for (size_t i = first; i <= last && usage.changed(); ++i) marks[i] = 1;
            next = last + 1;
        });
    for (size_t i = next; i < count && read.ok(); ++i) marks[i] = 1;
    return read;
}

ErrorOr<void> Smaps::count_present(u64 start, size_t count, u16 *counts) {
    const auto sampled = each_sampled(start, count, [&](size_t i, size_t present) {
        counts[i] = static_cast<u16>(present * (kStride / kPageSize));
    });
    if (sampled.ok()) return sampled;
    for (size_t i = 0; i < count; ++i) counts[i] = 0;
    return each_touched(start, count, [&](size_t first, size_t last, const Usage &usage) {
        constexpr u64 kMost = kHugeSize / kPageSize;
        const u64 share = usage.resident / ((usage.end - usage.start) / kPageSize) * kMost;
        for (size_t i = first; i <= last; ++i) {
            const u64 sum = counts[i] + share / kPageSize + (usage.resident > 0);
            counts[i] = static_cast<u16>(min(sum, kMost));
        }
    });
}

ErrorOr<void> Smaps::find_huge(u64 start, size_t count, u8 *marks) {
    return each_touched(start, count, [&](size_t first, size_t last, const Usage &usage) {
        for (size_t i = first; i <= last && usage.huge; ++i) marks[i] = 1;
    });
}

ErrorOr<void> Smaps::find_entries(u64 start, size_t count, u8 *marks) {
    const auto sampled = each_sampled(start, count, [&](size_t i, size_t present) {
        marks[i] = present ? kSmallEntries : kNothing;
    });
    if (!sampled.ok()) return Error{ENOTTY};
    bool mixed = false;
    const auto read =
        each_touched(start, count, [&](size_t first, size_t last, const Usage &usage) {
            mixed = mixed || (usage.huge && usage.huge < usage.resident);
            for (size_t i = first; i <= last; ++i)
                if (marks[i] && usage.huge) marks[i] = kOneEntry;
        });
    if (read.ok() && mixed) return Error{ENOTTY};
    return read;
}

u64 Smaps::huge_bytes(u64 start, u64 length) {
    const u64 end = start + length;
    u64 sum = 0;
    const auto read = each_usage(start, end, [&](const Usage &usage) {
        const u64 from = max(usage.start, start), to = min(usage.end, end);
        if (usage.start >= start)
            sum += min(usage.huge, to - from);
        else if (usage.huge >= usage.end - usage.start)
            sum += to - from;
    });
    return read.ok() ? sum : 0;
}

}  // namespace pht
