// The shared text store as the core sees it: finding an entry for a mapped file, and believing it
// or not. Writing entries is the Python side's business (pyhugetext.store); this is the path every
// process takes, so it is a handful of system calls per library.
//
// Layout below a store's root, all of it owned by the user (or root) and writable by nobody else:
//   v1/index/<identity of the original>   a record, see Record
//   v1/objects/<name>/<basename>          a huge-page-ready copy
#pragma once

#include "kernel/pagemap.h"
#include "store/record.h"

namespace pht {

// What the stores of a pass have in common.
struct Shared {
    const Pagemap &pagemap;
    Boot boot = {};
};

// One store, opened at most once per pass.
class Store : NonCopyable {
public:
    Store() = default;
    ~Store();

    // Opens and checks the directories. `root` is absolute and NUL-terminated. In the system's
    // store an entry may also be found by what a container image keeps of a file. What is in shared
    // memory is never written back.
    Outcome open(const char *root, bool system, bool in_memory);

    // Maps [target, target + length) of the region, whose original file is open, from its entry:
    // somewhere congruent to the target, in *address. Outcome no_entry when there is none for this
    // file as it is; `buildable` when writing the entry would help and the store can be written.
    Outcome map(const Region &region, int original, const sys::FileIdentity &file, Shared &shared,
                u64 target, u64 length, u64 *address) const;

private:
    Outcome map_entry(const Region &region, int original, const sys::FileIdentity &file,
                      Shared &shared, u64 target, u64 length, u64 *address) const;
    int version_ = -1, index_ = -1;
    bool system_ = false, in_memory_ = false;
};

}  // namespace pht
