// The seccomp filters on this thread: whether one was added since a moment; see seccomp(2).
#pragma once

#include "kernel/types.h"

namespace pht {

// Which filters there are, as one number: 0 for none, and another one once a filter was added
// (where the kernel tells how many there are, Linux 5.9; before, only the first one shows).
constexpr u64 kUnknownFilters = ~0ull;

// Asks by prctl(2), and reads the number only where there is a filter: at start nearly nothing is
// to be paid, and a filter that is there then was made for programs of all kinds.
u64 find_filters();

// Reads it from /proc, by the calls with which the dynamic linker has just opened and read a
// library (openat, read, close): a filter that kills for any other call lets these pass.
u64 read_filters();

}  // namespace pht
