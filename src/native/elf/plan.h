// Which 2 MiB pages of an object can be swapped.
#pragma once

#include "elf/region.h"

namespace pht {

// A mapping without its name, kept between reading /proc/self/maps and planning.
struct PlainMapping {
    u64 start, end, offset, inode;
    u32 dev_major, dev_minor;
    bool readable, writable, executable, shared;
    bool named_ours = false;  // of a name that content swapped in has, the original file's apart
};

// The file that an object is mapped from, as the kernel's maps name it.
struct MappedFile {
    u64 inode = 0;
    u32 dev_major = 0, dev_minor = 0;

    bool is_of(const PlainMapping &mapping) const {
        return mapping.inode == inode && mapping.dev_major == dev_major &&
               mapping.dev_minor == dev_minor;
    }
};

// An object as far as planning looks at it.
struct Outline {
    const Segment *segments;
    size_t count;
    u64 low, high;  // their span
    bool is_main;
    MappedFile file;
};

// Plans one region from the mappings around its object (sorted, at least those within 2 MiB of
// it). Sets pieces, pages, text_bytes, coverable_bytes and the identity of the mapped file; leaves
// region.outcome pending, or too_small when no page can be swapped.
//
// A page can be swapped when it holds text and every byte of it is non-writable content of the
// same file, padding or filler inside the object, or free address space that goes away with the
// object (for the executable, which never goes away, any free one). What is writable is decided by
// the program headers: RELRO looks read-only in maps and holds relocated pointers. What a segment
// covers is content, and has to be mapped as a loader maps it: where the program took a permission
// away (no access for a while, text that is only read), it is not ours to give back.
//
// With `inward` only pages that are text from end to end, so that nothing becomes executable that
// was not; where that leaves none of several, region.outcome is Status::strict. Returns false when
// memory ran out.
bool plan(Region &region, const Array<PlainMapping> &mappings, bool inward);

// The two steps of it, for who plans what is not mapped (yet): first what of the object's 2 MiB
// pages may be replaced, from the mappings there. Returns false when memory ran out.
template <class Memory>
bool find_extents(const Outline &object, const PlainMapping *mappings, size_t count,
                  Array<Extent, Memory> *out);

// Then the pages: calls visit(start, bytes of text, whether it can be swapped) for every 2 MiB page
// that holds text, in the order of addresses.
template <class Visit>
void each_text_page(const Extent *extents, size_t count, bool inward, Visit visit) {
    u64 at = 0;        // pages below were visited
    size_t first = 0;  // pieces before end below
    for (size_t i = 0; i < count; ++i) {
        if (extents[i].kind != Extent::Kind::text || extents[i].filler) continue;
        at = max(at, round_down(extents[i].start, kHugeSize));
        for (; at < extents[i].end; at += kHugeSize) {
            u64 covered = 0, text = 0;
            while (extents[first].end <= at) ++first;
            for (size_t p = first; p < count && extents[p].start < at + kHugeSize; ++p) {
                const Extent &extent = extents[p];
                const u64 bytes = min(extent.end, at + kHugeSize) - max(extent.start, at);
                covered += bytes;
                if (extent.kind == Extent::Kind::text && !extent.filler) text += bytes;
            }
            visit(at, text, covered == kHugeSize && text >= (inward ? kHugeSize : 1));
        }
    }
}

// Adds the mappings of [from, to) as a loader makes them from the program headers: the file's
// segments, the later over the earlier, and nothing between them. Returns false when memory ran
// out.
template <class Memory>
bool add_loaded(u64 load_bias, const Elf64_Phdr *headers, size_t count, const MappedFile &file,
                u64 from, u64 to, Array<PlainMapping, Memory> *out);

}  // namespace pht
