// Which 2 MiB pages of an object can be swapped.
#pragma once

#include "region.h"

namespace pht {

// A mapping without its name, kept between reading /proc/self/maps and planning.
struct PlainMapping {
    u64 start, end, offset, inode;
    u32 dev_major, dev_minor;
    bool readable, writable, executable, shared;
    bool named_ours = false;  // of a name that content swapped in has, the original file's apart
};

// Plans one region from the mappings around its object (sorted, at least those within 2 MiB of
// it). Sets pieces, pages, text_bytes, coverable_bytes and the identity of the mapped file; leaves
// region.outcome pending, or too_small when no page can be swapped.
//
// A page can be swapped when it holds text and every byte of it is non-writable content of the
// same file, padding or filler inside the object, or free address space that goes away with the
// object (for the executable, which never goes away, any free one). What is writable is decided by
// the program headers: RELRO looks read-only in maps and holds relocated pointers.
//
// With `inward` only pages that are text from end to end, as other tools plan: for comparison.
// Returns false when memory ran out.
bool plan(Region &region, const Array<PlainMapping> &mappings, bool inward);

}  // namespace pht
