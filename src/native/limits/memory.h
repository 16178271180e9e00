// How much memory this process may still take, so that nobody is killed for it: what its control
// groups and its own limits leave. Needs no lock of the engine's and allocates nothing from the
// pool; the builder asks too.
#pragma once

#include "kernel/strings.h"
#include "words/backing.h"
#include "words/status.h"

namespace pht {

// Bytes. Where nothing limits, sys::kUnlimited.
struct MemoryRoom {
    u64 limit = sys::kUnlimited;  // the least of all groups from this process's own up
    u64 used = 0;                 // of the group with that limit, without what can be reclaimed
    u64 free = sys::kUnlimited;   // the least that a group leaves
    u64 addresses = sys::kUnlimited, data = sys::kUnlimited;  // RLIMIT_AS and RLIMIT_DATA leave
    // What all processes of a group may still copy, together: an eighth of its limit, less all
    // that they have in shared memory and in huge pages, whosever it is.
    u64 together = sys::kUnlimited;
    int version = 0;         // of the control groups: 1, 2, or 0 where none was seen
    Outcome known = done();  // or what could not be read: then nothing may be taken
    Buffer<256> group;       // the one with the limit, below the mount point; for people
};

// Reads it. Into `stat`, if given, comes a descriptor of the topmost group with a limit, to be
// closed; -1 where there is none.
void memory_room(MemoryRoom *out, int *stat = nullptr);

// What this process, which has `own` bytes in private copies, may take for more of them now:
// of `configured`, and of a sixteenth of what is free.
u64 private_allowance(const MemoryRoom &room, Backing backing, u64 configured, u64 own);

// What copies in shared memory may be, all together, where there are `present` bytes of them now:
// of `configured`, a quarter of the machine's memory or an eighth of a group's, and no more than a
// sixteenth of what is free on top of what is there.
u64 shared_allowance(const MemoryRoom &room, u64 configured, u64 present);

// Taking memory in turns: of the processes of a group with a limit, one at a time looks and takes,
// so that what many of them take at once is as bounded as what one takes. The turn ends with the
// object. A process waits for its turn a moment, all its waits together.
class MemoryTurn : NonCopyable {
public:
    MemoryTurn() = default;
    ~MemoryTurn();

    // Looks, waits for the turn and looks again. done(), or Status::memory_limit.
    Outcome take_private(Backing backing, u64 bytes, u64 configured, u64 own);
    Outcome take_shared(u64 bytes, u64 configured, u64 present);

private:
    template <class Allowance> Outcome take(u64 bytes, Allowance allowance);
    Outcome wait();

    int stat_ = -1;
    bool locked_ = false;
};

// What counts against RLIMIT_AS and RLIMIT_DATA, in bytes. False where /proc does not tell.
bool used_addresses(u64 *addresses, u64 *data);

}  // namespace pht
