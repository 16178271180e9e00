// Every outcome there is, and where it came from. The core returns these and never prints.
#pragma once

#include "kernel/error_or.h"

namespace pht {

enum class Status : u8 {
    pending,        // not looked at yet
    ok,             // nothing stands in the way
    restored,       // was swapped, and put back
    too_small,      // no 2 MiB page of its read-only run holds text
    strict,         // its 2 MiB pages hold other content beside text, and only text may be taken
    below_minimum,  // less text than the settings ask for
    excluded,       // by a pattern
    not_included,   // by a pattern
    budget,         // the limit for private memory
    no_time,        // a start, or an import, may not take as long as a private copy does
    memory_limit,   // a control group or a limit of the process leaves too little for a copy
    own_code,       // holds the code that does the swapping, or the dynamic linker
    host,           // the program's own, which has Python inside and is not Python
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
    absent,         // the entry has no copy of this page yet
    little_used,    // of this page, and the control group has little memory
    promised,       // the store will have it after the next start or two
    small_copy,     // it is cached in small pages, which cannot be dropped now
    superseded,     // the kernel can take the original itself, without a copy
    stale,          // the entry was never known to be on disk, and the machine was started since
    unproven,       // the entry was never seen to be on disk, and is too old to be used unseen
    damaged,        // the entry is not what was written
    elsewhere,      // the next process has it at another address: a copy would serve no other
    unbuildable,    // the store remembers that an entry could not be made
    overlay,        // the store would lie in a container's own layer, and be built at every start
    cramped,        // building would take memory that a limit of the process may want back
    filtered,       // a seccomp filter was added since: the next call might kill
    other_engine,   // of another version, which was there first
    watched,        // by valgrind or a sanitizer
    busy,           // another thread has the engine, and may wait for this one
    no_memory,      // own tables could not grow
};
// A short name for programs, and a sentence for people: why not, and what to do.
struct StatusText {
    const char *name, *sentence;
};
inline constexpr StatusText kStatusTexts[] = {
    {"pending", "not looked at yet: loaded since the last import; pyhugetext.remap() covers it"},
    {"ok", ""},
    {"restored", "put back by restore()"},
    {"too_small", "too small: no 2 MiB page of its read-only part holds text"},
    {"strict",
     "strict: each 2 MiB page with its text holds other data, too, which must not become "
     "executable "
     "(PYHUGETEXT_STRICT)"},
    {"below_minimum", "too small: less coverable text than PYHUGETEXT_MIN_TEXT"},
    {"excluded", "excluded by a pattern"},
    {"not_included", "matches none of the include patterns"},
    {"budget", "budget: PYHUGETEXT_PRIVATE_LIMIT leaves no room for its private copy"},
    {"no_time",
     "time: a start or an import may not take as long as a private copy of it does "
     "(PYHUGETEXT_BUILD_TIME); pyhugetext.remap() takes that time"},
    {"memory_limit",
     "memory limit: the control group, RLIMIT_AS or RLIMIT_DATA leaves too little "
     "for a copy of its own (pyhugetext doctor shows what); warm the store "
     "(pyhugetext warm), which needs none"},
    {"own_code", "own code: holds pyhugetext or the dynamic linker"},
    {"host",
     "the text of a program that has Python inside: no copy of its own is made, which each of its "
     "processes would have (PYHUGETEXT_BACKING=memfd makes one)"},
    {"modified", "modified in memory: a breakpoint, probe or hook is in it"},
    {"refused", "kernel said no"},
    {"unsupported", "the layout of this file does not fit the backing"},
    {"unreadable", "not verifiable: /proc does not tell what has to be known"},
    {"map_count", "the process is near vm.max_map_count"},
    {"no_huge_page", "the kernel gave no 2 MiB page"},
    {"file_gone", "the original file was deleted or replaced"},
    {"no_store", "there is no store"},
    {"untrusted", "not trusted: somebody else could have written it"},
    {"no_entry", "the store has no entry for this file"},
    {"absent", "the store has no copy of this page yet"},
    {"little_used",
     "little of this page is used, and the control group has too little memory for 2 MiB of it"},
    {"promised",
     "its copy in the store is being made, a part at each start (PYHUGETEXT_BUILD_TIME); the next "
     "ones have it"},
    {"small_copy",
     "its copy in the store is cached in small pages for now: they are not on disk yet, another "
     "process runs from them, or no 2 MiB of memory were free; the next start, pyhugetext.remap() "
     "or pyhugetext store heal mends that"},
    {"superseded", "not needed: the kernel takes the file itself, without a copy"},
    {"stale", "the entry was never known to be on disk, and the machine was started since"},
    {"unproven", "the entry was not seen to be on disk in its first minutes; it is compared anew"},
    {"damaged", "the entry is not what was written"},
    {"elsewhere",
     "it lies at another address in each process, so a copy in a store would serve no other; what "
     "pyhugetext image aligns, a python that is no position-independent executable, and files "
     "linked with -z max-page-size=2097152 are shared"},
    {"unbuildable", "an entry could not be made; pyhugetext store list tells why"},
    {"overlay",
     "on overlayfs it would be built at every start of a container: prepare the image (RUN "
     "pyhugetext image), put the store on a volume (PYHUGETEXT_STORE) or set "
     "PYHUGETEXT_BUILD=always"},
    {"cramped",
     "not built under a limit (RLIMIT_AS or RLIMIT_DATA) that leaves less than 16 "
     "MiB; warm it (pyhugetext warm) or set PYHUGETEXT_BUILD=always"},
    {"filtered",
     "a seccomp filter was added after the start, which may kill for any further "
     "call: libraries loaded since are left; pyhugetext.remap() covers them where "
     "the filter allows"},
    {"other_engine",
     "another version of pyhugetext is at work in this process: preloaded, or of another "
     "environment"},
    {"watched", "valgrind or a sanitizer watches the memory of this program"},
    {"busy",
     "another thread has the engine and waits for the dynamic linker, whose lock "
     "this one holds (it is in a callback of dl_iterate_phdr)"},
    {"no_memory", "no memory for own tables"},
};
static_assert(sizeof kStatusTexts / sizeof *kStatusTexts ==
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
    lock,
    fadvise,
    sync,
};
// As a person reads them in a manual page.
inline constexpr const char *kCallNames[] = {
    "",
    "open",
    "read",
    "reading /proc/self/pagemap and smaps",
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
    "flock",
    "posix_fadvise(POSIX_FADV_DONTNEED)",
    "sync_file_range",
};
static_assert(sizeof kCallNames / sizeof *kCallNames == static_cast<int>(Call::sync) + 1);

struct Outcome {
    Status status = Status::pending;
    Call call = Call::none;
    u16 error = 0;           // errno of that call, 0 where it did not fail
    bool buildable = false;  // of a store: writing the entry (anew) would help, and may succeed

    bool ok() const { return status == Status::ok; }
};

constexpr Outcome done() {
    return {Status::ok, Call::none, 0};
}
constexpr Outcome refused(Call call, Error error) {
    return {Status::refused, call, error.number};
}

}  // namespace pht
