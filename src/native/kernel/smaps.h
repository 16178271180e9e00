// What /proc/self/smaps tells of whole mappings; see proc_pid_smaps(5). Of single pages pagemap
// tells, which is closed to a process that changed its user (it is not dumpable any more); this is
// not.
#pragma once

#include "kernel/maps.h"

namespace pht {

// Bytes of a mapping.
struct Usage {
    u64 start, end;
    u64 resident = 0;   // present in the page table, but for those of MAP_HUGETLB
    u64 huge = 0;       // in 2 MiB pages
    u64 anonymous = 0;  // of this process alone: of a file's mapping, what was written to
    u64 swapped = 0;    // the same, on a swap device; of memory files, the file's, too

    bool changed() const { return anonymous || swapped; }
};

// Adds a field of smaps to what it is about; true for `Anonymous` and `Swap`, of which a mapping
// has one each.
bool add_field(Str line, Usage *usage);

// Calls visit(const Usage &) for every mapping that touches [start, end). EIO where a mapping came
// without what is to be known of it, or there was none, or they do not come in their order, as the
// kernel has them also where they change meanwhile.
template <class Visit> ErrorOr<void> each_usage(u64 start, u64 end, Visit visit) {
    Usage usage = {};
    u64 behind = 0;   // the end of the mapping before
    int fields = -1;  // of the two, of a mapping that touches; -1: none is at hand
    bool whole = true, any = false;
    const auto finish = [&] {
        if (fields >= 0) {
            whole = whole && fields == 2;
            any = true;
            if (whole) visit(usage);
        }
        fields = -1;
    };
    const auto read = each_line("/proc/self/smaps", [&](Str line) {
        if (fields >= 0 && line.size && line.data[0] >= 'A' && line.data[0] <= 'Z') {
            fields += add_field(line, &usage);
            return true;
        }
        Mapping mapping;
        if (!parse_mapping(line, &mapping)) return true;
        finish();
        whole = whole && mapping.start >= behind;
        if (mapping.start >= end || !whole) return false;
        behind = mapping.end;
        if (mapping.end > start) {
            usage = {mapping.start, mapping.end};
            fields = 0;
        }
        return true;
    });
    if (!read.ok()) return read;
    finish();
    if (!whole || !any) return Error{EIO};
    return {};
}

// What a Pagemap is asked, answered by whole mappings.
struct Smaps {
    // A mapping with a changed page is taken to be changed all over; so is what has no mapping.
    static ErrorOr<void> find_modified(u64 start, size_t count, u8 *marks);
    // By asking for one page in four, where that may be asked; else what is present of a mapping is
    // taken to be spread over it.
    static ErrorOr<void> count_present(u64 start, size_t count, u16 *counts);
    // All pages of a mapping or none.
    static ErrorOr<void> find_huge(u64 start, size_t count, u8 *marks);
    // ENOTTY where a mapping has pages of both sizes, or it cannot be asked which are present.
    static ErrorOr<void> find_entries(u64 start, size_t count, u8 *marks);
    // As Pagemap::huge_bytes().
    static u64 huge_bytes(u64 start, u64 length);
};

}  // namespace pht
