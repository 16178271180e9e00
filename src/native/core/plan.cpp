#include "plan.h"

namespace pht {

namespace {

bool same_file(const Region &region, const PlainMapping &mapping) {
    return mapping.inode == region.inode && mapping.dev_major == region.dev_major &&
           mapping.dev_minor == region.dev_minor;
}

// The file behind an object is the one behind its first executable mapping.
bool find_file(Region &region, const Array<PlainMapping> &mappings) {
    for (const PlainMapping &mapping : mappings) {
        if (!mapping.executable || mapping.inode == 0) continue;
        if (mapping.start < region.object.high && mapping.end > region.object.low) {
            region.inode = mapping.inode;
            region.dev_major = mapping.dev_major;
            region.dev_minor = mapping.dev_minor;
            return true;
        }
    }
    return false;
}

struct Builder {
    Region &region;
    u64 low_offset;  // in the file; of what is mapped at the object's begin
    bool memory = true;

    void add(u64 start, u64 end, u64 offset, Piece::Kind kind, bool of_segment) {
        const bool readable = kind == Piece::Kind::text || kind == Piece::Kind::readonly;
        const bool filler = readable && !of_segment;
        // Not where the dynamic linker's mapping of the whole file has it: a mapping of the
        // program's own, which came to lie there and is not ours to replace.
        if (filler && offset - low_offset != start - region.object.low) return;
        if (!region.pieces.push({start, end, offset, kind, filler})) memory = false;
    }

    // Adds [start, end) less what belongs to writable segments.
    void add_unwritable(u64 start, u64 end, u64 offset, Piece::Kind kind) {
        u64 at = start;
        while (at < end) {
            // The segments that cover `at`, up to where the first ends or another begins.
            u64 stop = end;
            bool writable = false, of_segment = false;
            for (const Segment &segment : region.object.segments) {
                if (segment.start > at) stop = min(stop, segment.start);
                if (segment.start > at || at >= segment.end) continue;
                stop = min(stop, segment.end);
                (segment.writable ? writable : of_segment) = true;
            }
            if (!writable) add(at, stop, offset + (at - start), kind, of_segment);
            at = stop;
        }
    }

    void add_mapping(const PlainMapping &mapping, u64 start, u64 end) {
        const Object &object = region.object;
        start = max(start, object.low);
        end = min(end, object.high);
        if (start >= end || mapping.shared || mapping.writable) return;
        const u64 offset = mapping.offset + (start - mapping.start);
        if (!mapping.readable && !mapping.executable)
            add_unwritable(start, end, offset,
                           mapping.inode ? Piece::Kind::padding : Piece::Kind::guard);
        else if (mapping.readable && same_file(region, mapping))
            add_unwritable(start, end, offset,
                           mapping.executable ? Piece::Kind::text : Piece::Kind::readonly);
    }

    void add_hole(u64 start, u64 end) {
        const Object &object = region.object;
        if (!object.is_main) {
            start = max(start, object.low);
            end = min(end, object.high);
        }
        add_unwritable(start, end, 0, Piece::Kind::hole);
    }
};

}  // namespace

bool plan(Region &region, const Array<PlainMapping> &mappings, bool inward) {
    const Object &object = region.object;
    region.pieces.clear();
    region.pages.clear();
    region.text_bytes = region.coverable_bytes = 0;
    region.outcome = {};
    if (!find_file(region, mappings)) {
        region.outcome = {Status::too_small, Call::none, 0};
        return true;
    }

    const u64 from = round_down(object.low, kHugeSize), to = round_up(object.high, kHugeSize);
    Builder builder{region, 0};
    for (const PlainMapping &mapping : mappings)
        if (mapping.start == object.low && same_file(region, mapping))
            builder.low_offset = mapping.offset;
    u64 at = from;
    for (const PlainMapping &mapping : mappings) {
        if (mapping.end <= from) continue;
        if (mapping.start >= to) break;
        if (mapping.start > at) builder.add_hole(at, mapping.start);
        builder.add_mapping(mapping, max(mapping.start, from), min(mapping.end, to));
        at = max(at, mapping.end);
    }
    if (at < to) builder.add_hole(at, to);
    if (!builder.memory) return false;

    region.base = from;
    if (!region.pages.resize((to - from) / kHugeSize)) return false;
    bool any = false;
    size_t first_piece = 0;
    for (size_t i = 0; i < region.pages.size(); ++i) {
        const u64 start = region.address_of(i), end = start + kHugeSize;
        u64 covered = 0, text = 0;
        while (first_piece < region.pieces.size() && region.pieces[first_piece].end <= start)
            ++first_piece;
        for (size_t p = first_piece; p < region.pieces.size(); ++p) {
            const Piece &piece = region.pieces[p];
            if (piece.start >= end) break;
            const u64 bytes = min(piece.end, end) - max(piece.start, start);
            covered += bytes;
            if (piece.kind == Piece::Kind::text && !piece.filler) text += bytes;
        }
        HugePage &page = region.pages[i];
        page.text = static_cast<u32>(text);
        region.text_bytes += text;
        if (covered < kHugeSize || text < (inward ? kHugeSize : 1)) continue;
        page.state = HugePage::State::small;
        region.coverable_bytes += text;
        any = true;
    }
    if (!any) region.outcome = {Status::too_small, Call::none, 0};
    return true;
}

}  // namespace pht
