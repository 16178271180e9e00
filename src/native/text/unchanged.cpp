#include "text/unchanged.h"

namespace pht {

namespace {

bool as_planned(const Region &region, const Extent &extent, const Mapping &mapping) {
    if (mapping.writable || mapping.shared) return false;
    const bool text = extent.kind == Extent::Kind::text;
    if (!text && extent.kind != Extent::Kind::readonly)
        return !mapping.readable && !mapping.executable;
    return mapping.readable && mapping.executable == text && mapping.inode == region.inode &&
           mapping.dev_major == region.dev_major && mapping.dev_minor == region.dev_minor;
}

bool is_text(const Mapping &mapping) {
    return mapping.readable && mapping.executable && !mapping.writable && !mapping.shared;
}

}  // namespace

ErrorOr<void> find_unplanned(const Region &region, MapsQuery &query, u64 start, size_t count,
                             bool or_ours, u8 *marks) {
    const u64 end = start + count * kHugeSize;
    // Calls visit(piece, start, end) for the pieces in [from, to). Holes are told by reserving
    // them.
    const auto each_extent = [&](u64 from, u64 to, auto visit) {
        for (const Extent &extent : region.extents) {
            const u64 low = max(extent.start, from), high = min(extent.end, to);
            if (low < high && extent.kind != Extent::Kind::hole) visit(extent, low, high);
        }
    };
    const auto mark = [&](u64 from, u64 to) {
        for (u64 at = round_down(from, kHugeSize); at < to; at += kHugeSize)
            marks[(at - start) / kHugeSize] = 1;
    };
    const auto mark_gone = [&](const Extent &, u64 low, u64 high) { mark(low, high); };
    u64 at = start;
    const auto look = [&](const Mapping &mapping) {
        const u64 from = max(mapping.start, start), to = min(mapping.end, end);
        if (from >= to) return mapping.start < end;
        each_extent(at, from, mark_gone);
        at = to;
        if (or_ours && is_text(mapping)) return true;
        each_extent(from, to, [&](const Extent &extent, u64 low, u64 high) {
            if (!as_planned(region, extent, mapping)) mark(low, high);
        });
        return true;
    };
    auto seen = query.each(start, end, look);
    if (seen.error() == ENOTTY) {
        at = start;
        seen = each_mapping(look);
    }
    if (seen.ok()) each_extent(at, end, mark_gone);
    return seen;
}

}  // namespace pht
