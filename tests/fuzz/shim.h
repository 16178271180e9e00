// Included before anything else: the core's system calls come here.
#pragma once

#include <stddef.h>

#if defined(__x86_64__)
#include "kernel/syscall_x86_64.h"
#else
#include "kernel/syscall_aarch64.h"
#endif

namespace pht::sys {
// Only pread(2) is expected; see layout.cpp.
long simulated(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0);
}  // namespace pht::sys
#define raw simulated
