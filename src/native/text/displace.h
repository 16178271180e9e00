// The original text of a large library, moved out of the way before it is replaced.
//
// To replace a mapping the kernel unmaps what was there, page by page. A library whose constructors
// have run over a hundred megabytes of text has ten thousand pages in the page table by the time it
// is looked at, and taking them out costs more than all the rest of its activation. Moving the page
// table itself (mremap with MREMAP_DONTUNMAP, Linux 5.13 for files) costs next to nothing: then the
// place is empty, and nothing is taken out before the process ends, as without us. What is moved
// stays mapped: address space, and pages of the page cache that count as resident, as without us.
#pragma once

#include "elf/region.h"

namespace pht {

// Moves the text in [from, to) away, where there is enough of it, and notes it in region.displaced.
// The place stays mapped to the original: whoever executes it meanwhile reads it from the page
// cache again. Where it cannot be done, or not without harm, nothing happens.
void displace(Region &region, u64 from, u64 to);

// Maps the last page of a library's text once more, somewhere behind the library, where the copies
// just built take all of its text: needrestart(1) and its like look for executable mappings of
// files that were deleted or replaced. It is a displaced text of one page, which nobody runs.
void leave_witness(Region &region, int fd);

// Moves it back, page table and all: the text was not replaced after all.
void bring_back(Region &region, u64 from, u64 to);

// Unmaps all that was displaced. Nobody refers to it.
void discard_displaced(Region &region);

}  // namespace pht
