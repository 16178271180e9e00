// What the control groups of this process leave of the memory, of version 1 and 2; see cgroups(7).
#pragma once

#include "limits/memory.h"

namespace pht {

// The share of a group's limit that all its processes may copy, together.
inline constexpr u64 kForAll = 8;

constexpr u64 less(u64 from, u64 what) {
    return from > what ? from - what : 0;
}

// Fills in what groups say, and why not all of it is known. Into `stat`, if given, comes a
// descriptor of the topmost group with a limit.
void read_groups(MemoryRoom *out, int *stat);

}  // namespace pht
