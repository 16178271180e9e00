#include "unchanged.h"

namespace pht {

namespace {

bool as_planned(const Region &region, const Piece &piece, const Mapping &mapping) {
    if (mapping.writable || mapping.shared) return false;
    const bool text = piece.kind == Piece::Kind::text;
    if (!text && piece.kind != Piece::Kind::readonly)
        return !mapping.readable && !mapping.executable;
    return mapping.readable && mapping.executable == text && mapping.inode == region.inode &&
           mapping.dev_major == region.dev_major && mapping.dev_minor == region.dev_minor;
}

bool is_text(const Mapping &mapping) {
    return mapping.readable && mapping.executable && !mapping.writable && !mapping.shared;
}

}  // namespace

long find_unplanned(const Region &region, MapsQuery &query, u64 start, size_t count, bool or_ours,
                    u8 *marks) {
    const u64 end = start + count * kHugeSize;
    // Calls visit(piece, start, end) for the pieces in [from, to). Holes are told by reserving
    // them.
    const auto each_piece = [&](u64 from, u64 to, auto visit) {
        for (const Piece &piece : region.pieces) {
            const u64 low = max(piece.start, from), high = min(piece.end, to);
            if (low < high && piece.kind != Piece::Kind::hole) visit(piece, low, high);
        }
    };
    const auto mark = [&](u64 from, u64 to) {
        for (u64 at = round_down(from, kHugeSize); at < to; at += kHugeSize)
            marks[(at - start) / kHugeSize] = 1;
    };
    const auto mark_gone = [&](const Piece &, u64 low, u64 high) { mark(low, high); };
    u64 at = start;
    const auto look = [&](const Mapping &mapping) {
        const u64 from = max(mapping.start, start), to = min(mapping.end, end);
        if (from >= to) return mapping.start < end;
        each_piece(at, from, mark_gone);
        at = to;
        if (or_ours && is_text(mapping)) return true;
        each_piece(from, to, [&](const Piece &piece, u64 low, u64 high) {
            if (!as_planned(region, piece, mapping)) mark(low, high);
        });
        return true;
    };
    long error = query.each(start, end, look);
    if (error == -sys::kEnotty) {
        at = start;
        error = each_mapping(look);
    }
    if (!error) each_piece(at, end, mark_gone);
    return error;
}

}  // namespace pht
