// Which chunks of a copy are made, in which order, and for how long.
#pragma once

#include "builder/build_time.h"
#include "builder/layout.h"
#include "builder/original.h"

namespace pht {

// The chunks to make: the headers; symbols and the like, where they are small beside what a start
// can copy; the text that is wanted, in that order. A gap of one chunk between two of the text is
// filled, so that there are fewer mappings. Behind the first *urgent comes what has time until
// those of all objects are there: the rest of what tools read and, of an object that is not too
// large or of which all is wanted, of the text, which the program may use later. `present`: what
// the copy has, as in a record; null where it is not known. False: no memory.
bool order_chunks(const Layout &layout, const Wanted &wanted, const u8 *present,
                  MappedArray<u32> *order, size_t *urgent);

// The runs of text chunks that have a bit in a bitmap.
bool find_texts(const Layout &layout, const u8 *bitmap, MappedArray<Range> *texts);

}  // namespace pht
