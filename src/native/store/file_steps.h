// A file's bytes, read step by step, to be compared with bytes in memory.
#pragma once

#include "kernel/memory.h"
#include "kernel/sys.h"
#include "words/status.h"

namespace pht {

// Calls visit(bytes already seen, bytes, count) for [offset, offset + size) of a file until one
// fails: the outcome of that, or why the file cannot be read. By read(2), not through a mapping:
// touching one raises SIGBUS where the file ends, and the kernel puts uprobes into it.
template <class Visit> Outcome each_step(int fd, u64 offset, u64 size, Visit visit) {
    constexpr u64 kStep = 16 * kPageSize;
    void *const bytes = allocate(kStep);
    if (!bytes) return {Status::no_memory, Call::none, 0};
    Outcome outcome = done();
    for (u64 seen = 0; seen < size && outcome.ok();) {
        const auto step = sys::uninterrupted(
            [&] { return sys::pread(fd, bytes, min(kStep, size - seen), offset + seen); });
        const auto got = step.nonzero(EFAULT);
        if (!got.ok()) {
            outcome = refused(Call::read, got);
            continue;
        }
        outcome = visit(seen, static_cast<const u8 *>(bytes), got.value());
        seen += got.value();
    }
    release(bytes, kStep);
    return outcome;
}

}  // namespace pht
