// Which chunks of a copy are made, in which order, and for how long.
#pragma once

#include "builder/layout.h"
#include "builder/original.h"

namespace pht {

// Until when a program's start may be kept waiting. However short that is, a chunk is added each
// time: what takes many starts comes to its end.
struct Deadline {
    u64 at = ~0ull;  // nanoseconds, as sys::now()
    bool moved = false;

    bool is_limited() const { return at != ~0ull; }
    bool is_over() const { return moved && sys::now() >= at; }
};

// Whether symbols and the like are small beside what a start can copy.
bool has_few_tools(const Layout &layout);

// The chunks to make: the headers; symbols and the like, where they are small beside what a start
// can copy; the text, in the order that is wanted, then what earlier starts wanted; and the rest of
// what tools read. A gap of one chunk between two of the text is filled, so that there are fewer
// mappings. `before`: the bitmap of an earlier record, or nullptr. False: no memory.
bool order_chunks(const Layout &layout, const Wanted &wanted, const u8 *before,
                  MappedArray<u32> *order);

// The runs of text chunks that have a bit in a bitmap.
bool find_texts(const Layout &layout, const u8 *bitmap, MappedArray<Range> *texts);

}  // namespace pht
