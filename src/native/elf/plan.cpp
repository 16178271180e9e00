#include "elf/plan.h"

namespace pht {

namespace {

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

template <class Memory> struct Builder {
    const Outline &object;
    u64 low_offset;  // in the file; of what is mapped at the object's begin
    Array<Extent, Memory> *extents;
    bool memory = true;

    void add(u64 start, u64 end, u64 offset, Extent::Kind kind, bool of_segment) {
        const bool readable = kind == Extent::Kind::text || kind == Extent::Kind::readonly;
        const bool filler = readable && !of_segment;
        // Not where the dynamic linker's mapping of the whole file has it: a mapping of the
        // program's own, which came to lie there and is not ours to replace.
        if (filler && offset - low_offset != start - object.low) return;
        if (!extents->push({start, end, offset, kind, filler})) memory = false;
    }

    // Adds [start, end) less what belongs to writable segments, and what of the others is not
    // mapped as its segment says.
    void add_unwritable(u64 start, u64 end, u64 offset, Extent::Kind kind) {
        u64 at = start;
        while (at < end) {
            // The segments that cover `at`, up to where the first ends or another begins.
            u64 stop = end;
            bool writable = false, executable = false, other = false;
            for (size_t i = 0; i < object.count; ++i) {
                const Segment &segment = object.segments[i];
                if (segment.start > at) stop = min(stop, segment.start);
                if (segment.start > at || at >= segment.end) continue;
                stop = min(stop, segment.end);
                (segment.writable ? writable : segment.executable ? executable : other) = true;
            }
            const bool as_loaded =
                kind == Extent::Kind::text ||
                (kind == Extent::Kind::readonly ? other || !executable : !other && !executable);
            if (!writable && as_loaded)
                add(at, stop, offset + (at - start), kind, executable || other);
            at = stop;
        }
    }

    void add_mapping(const PlainMapping &mapping, u64 start, u64 end) {
        start = max(start, object.low);
        end = min(end, object.high);
        if (start >= end || mapping.shared || mapping.writable) return;
        const u64 offset = mapping.offset + (start - mapping.start);
        if (!mapping.readable && !mapping.executable)
            add_unwritable(start, end, offset,
                           mapping.inode ? Extent::Kind::padding : Extent::Kind::guard);
        else if (mapping.readable && object.file.is_of(mapping))
            add_unwritable(start, end, offset,
                           mapping.executable ? Extent::Kind::text : Extent::Kind::readonly);
    }

    void add_hole(u64 start, u64 end) {
        if (!object.is_main) {
            start = max(start, object.low);
            end = min(end, object.high);
        }
        add_unwritable(start, end, 0, Extent::Kind::hole);
    }
};

}  // namespace

template <class Memory>
bool find_extents(const Outline &object, const PlainMapping *mappings, size_t count,
                  Array<Extent, Memory> *out) {
    const u64 from = round_down(object.low, kHugeSize), to = round_up(object.high, kHugeSize);
    Builder<Memory> builder{object, 0, out};
    for (size_t i = 0; i < count; ++i)
        if (mappings[i].start == object.low && object.file.is_of(mappings[i]))
            builder.low_offset = mappings[i].offset;
    u64 at = from;
    for (size_t i = 0; i < count; ++i) {
        const PlainMapping &mapping = mappings[i];
        if (mapping.end <= from) continue;
        if (mapping.start >= to) break;
        if (mapping.start > at) builder.add_hole(at, mapping.start);
        builder.add_mapping(mapping, max(mapping.start, from), min(mapping.end, to));
        at = max(at, mapping.end);
    }
    if (at < to) builder.add_hole(at, to);
    return builder.memory;
}
template bool find_extents<Mapped>(const Outline &, const PlainMapping *, size_t,
                                   Array<Extent, Mapped> *);

template <class Memory>
bool add_loaded(u64 load_bias, const Elf64_Phdr *headers, size_t count, const MappedFile &file,
                u64 from, u64 to, Array<PlainMapping, Memory> *out) {
    for (u64 at = from; at < to;) {
        const Elf64_Phdr *covering = nullptr;
        u64 stop = to;
        for (size_t i = 0; i < count; ++i) {
            const Elf64_Phdr &header = headers[i];
            if (header.p_type != PT_LOAD || header.p_memsz == 0) continue;
            const u64 start = round_down(load_bias + header.p_vaddr, kPageSize);
            const u64 end = round_up(load_bias + header.p_vaddr + header.p_memsz, kPageSize);
            if (start > at) stop = min(stop, start);
            if (start > at || at >= end) continue;
            covering = &header;
            stop = min(stop, end);
        }
        if (covering) {
            const u64 start = round_down(load_bias + covering->p_vaddr, kPageSize);
            const u64 file_end =
                round_up(load_bias + covering->p_vaddr + covering->p_filesz, kPageSize);
            const bool from_file = at < file_end;
            if (from_file) stop = min(stop, file_end);
            const PlainMapping mapping = {
                at,
                stop,
                from_file ? round_down(covering->p_offset, kPageSize) + (at - start) : 0,
                from_file ? file.inode : 0,
                from_file ? file.dev_major : 0,
                from_file ? file.dev_minor : 0,
                (covering->p_flags & PF_R) != 0,
                (covering->p_flags & PF_W) != 0,
                (covering->p_flags & PF_X) != 0,
                false,
            };
            if (!out->push(mapping)) return false;
        }
        at = stop;
    }
    return true;
}
template bool add_loaded<Pooled>(u64, const Elf64_Phdr *, size_t, const MappedFile &, u64, u64,
                                 Array<PlainMapping, Pooled> *);
template bool add_loaded<Mapped>(u64, const Elf64_Phdr *, size_t, const MappedFile &, u64, u64,
                                 Array<PlainMapping, Mapped> *);

bool plan(Region &region, const Array<PlainMapping> &mappings, bool inward) {
    const Object &object = region.object;
    region.extents.clear();
    region.pages.clear();
    region.text_bytes = region.coverable_bytes = 0;
    region.outcome = {};
    if (!find_file(region, mappings)) {
        region.outcome = {Status::too_small, Call::none, 0};
        return true;
    }

    const Outline outline = {object.segments.data(),
                             object.segments.size(),
                             object.low,
                             object.high,
                             object.is_main,
                             {region.inode, region.dev_major, region.dev_minor}};
    if (!find_extents(outline, mappings.data(), mappings.size(), &region.extents)) return false;

    const u64 from = round_down(object.low, kHugeSize), to = round_up(object.high, kHugeSize);
    region.base = from;
    if (!region.pages.resize((to - from) / kHugeSize)) return false;
    bool any = false, merged = false;
    if (inward)
        each_text_page(region.extents.data(), region.extents.size(), false,
                       [&](u64, u64, bool coverable) { merged = merged || coverable; });
    each_text_page(region.extents.data(), region.extents.size(), inward,
                   [&](u64 start, u64 text, bool coverable) {
                       HugePage &page = region.pages[(start - from) / kHugeSize];
                       page.text = static_cast<u32>(text);
                       region.text_bytes += text;
                       if (!coverable) return;
                       page.state = HugePage::State::small;
                       region.coverable_bytes += text;
                       any = true;
                   });
    if (!any) region.outcome = {merged ? Status::strict : Status::too_small, Call::none, 0};
    return true;
}

}  // namespace pht
