// Whether what is mapped is still what was planned for, a moment before it is replaced.
//
// A program that patches its text makes it writable, writes, and takes that back. When new text
// comes between the first two steps, the write kills. Between the last look and the mremap nothing
// can be excluded; but that is a microsecond or two, where a pass takes milliseconds.
#pragma once

#include "elf/region.h"
#include "kernel/maps.h"

namespace pht {

// Marks the 2 MiB pages of [start, start + count * 2 MiB) in which a mapping has another protection
// or file than its piece of the plan, or is gone. With `or_ours`, what is mapped as our text is
// right, too.
ErrorOr<void> find_unplanned(const Region &region, MapsQuery &query, u64 start, size_t count,
                             bool or_ours, u8 *marks);

}  // namespace pht
