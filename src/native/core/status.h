// Every outcome there is, and where it came from. The core returns these and never prints.
#pragma once

#include "types.h"

namespace pht {

enum class Backing : u8 { none, file, store, shm, memfd, thp, hugetlb, automatic };
inline constexpr const char *kBackingNames[] = {"none",  "file", "store",   "shm",
                                                "memfd", "thp",  "hugetlb", "auto"};
inline constexpr int kBackings = 7;  // those a region can have, `none` included

// Which missing entries of the stores a region waits for, because somebody is to build them.
enum class Building : u8 { never, automatic, always };

constexpr bool is_private(Backing backing) {
    return backing == Backing::memfd || backing == Backing::thp || backing == Backing::hugetlb;
}

enum class Status : u8 {
    pending,        // not looked at yet
    huge,           // all its coverable text was swapped
    partial,        // some of it
    restored,       // was swapped, and put back
    too_small,      // no 2 MiB page of its read-only run holds text
    below_minimum,  // less text than the settings ask for
    excluded,       // by a pattern
    not_included,   // by a pattern
    budget,         // the limit for private memory
    own_code,       // holds the code that does the swapping, or the dynamic linker
    modified,       // changed in memory: a breakpoint, a probe, a hook
    refused,        // the kernel said no; the outcome names the call
    unsupported,    // the backing cannot represent this layout
    unreadable,     // /proc did not tell what has to be known
    map_count,      // too near to vm.max_map_count
    no_huge_page,   // every call succeeded, and the kernel gave small pages
    file_gone,      // the original file was deleted or replaced
    no_store,       // no such directory
    untrusted,      // somebody else could have written it
    no_entry,       // the store has nothing for this file as it is
    stale,          // the entry was never known to be on disk, and the machine was started since
    damaged,        // the entry is not what was written
    unbuildable,    // the store remembers that an entry could not be made
    overlay,        // the store would lie in a container's own layer, and be built at every start
    cramped,        // building would take memory that a limit of the process may want back
    filtered,       // a seccomp filter was added since: the next call might kill
    busy,           // another thread has the engine, and may wait for this one
    no_memory,      // own tables could not grow
};
inline constexpr const char *kStatusNames[] = {
    "pending",     "huge",         "partial",   "restored",     "too_small",   "below_minimum",
    "excluded",    "not_included", "budget",    "own_code",     "modified",    "refused",
    "unsupported", "unreadable",   "map_count", "no_huge_page", "file_gone",   "no_store",
    "untrusted",   "no_entry",     "stale",     "damaged",      "unbuildable", "overlay",
    "cramped",     "filtered",     "busy",      "no_memory",
};
static_assert(sizeof kStatusNames / sizeof *kStatusNames ==
              static_cast<int>(Status::no_memory) + 1);

// The call that failed, for messages.
enum class Call : u8 {
    none,
    open,
    read,
    pagemap,
    mmap_reserve,
    mmap,
    memfd_create,
    ftruncate,
    pwrite,
    copy,
    seal,
    collapse,
    hugepage,
    mprotect,
    mremap,
    statx,
    access,
};
// As a person reads them in a manual page.
inline constexpr const char *kCallNames[] = {
    "",
    "open",
    "read",
    "reading /proc/self/pagemap",
    "mmap(PROT_NONE)",
    "mmap",
    "memfd_create",
    "ftruncate",
    "write",
    "process_vm_readv",
    "fcntl(F_ADD_SEALS)",
    "madvise(MADV_COLLAPSE)",
    "madvise(MADV_HUGEPAGE)",
    "mprotect(PROT_EXEC)",
    "mremap",
    "statx",
    "access(W_OK)",
};
static_assert(sizeof kCallNames / sizeof *kCallNames == static_cast<int>(Call::access) + 1);

struct Outcome {
    Status status = Status::pending;
    Call call = Call::none;
    u16 error = 0;           // errno of that call, 0 where it did not fail
    bool buildable = false;  // of a store: writing the entry (anew) would help, and may succeed

    bool ok() const { return status == Status::huge; }
};

constexpr Outcome done() {
    return {Status::huge, Call::none, 0};
}
constexpr Outcome refused(Call call, long result) {
    return {Status::refused, call, static_cast<u16>(-result)};
}

}  // namespace pht
