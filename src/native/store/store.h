// The shared text store as the core sees it: finding an entry for a mapped file, and believing it
// or not. Writing entries is the builder's business; this is the path every process takes, so it is
// a handful of system calls per library.
//
// Layout below a store's root, all of it owned by the user (or root) and writable by nobody else:
//   v1/index/<identity of the original>   a record, see Record
//   v1/objects/<name>/<basename>          a huge-page-ready copy
#pragma once

#include "kernel/pagemap.h"
#include "store/mend.h"
#include "store/record.h"

namespace pht {

// What the stores of a pass have in common.
struct Shared {
    const Pagemap &pagemap;
    Boot boot = {};
    bool knows_kernel = false;
    u64 kernel = 0;  // as this_kernel(); 0 where a filter may kill for being asked

    // Whether this kernel may be another one than that.
    bool is_other(u64 than);
};

// An entry of a store for a file, its copy open.
class Entry {
public:
    Entry() = default;
    ~Entry() { close(); }
    Entry(const Entry &) = delete;
    Entry &operator=(const Entry &) = delete;

    // Whether the copy has the 2 MiB page of the region at this address.
    bool has(const Region &region, u64 address) const;

    // Whether it is being made, a part at each start; whether something may be added to it.
    bool is_growing() const { return record_.is_growing(); }
    bool may_grow() const { return record_.may_grow(); }
    // Whether this kernel has not been asked yet to take the original itself, without a copy.
    bool is_untried() const { return untried_; }
    void take_as_tried() { untried_ = false; }

    // Maps [target, target + length) of the region, all of which it has: somewhere congruent to the
    // target, in *address. What is small of it is mended, or left to the original; see mend.h.
    Outcome map(const Region &region, const Pagemap &pagemap, Mender *mender, u64 target,
                u64 length, u8 *left, Outcome *why, u64 *address) const;

private:
    friend class Store;
    void close();
    Outcome place(const Region &region, u64 target, u64 length, u64 *offset) const;
    void remember(u64 length) const;

    RecordRoom room_;
    RecordView record_;
    int copy_ = -1;
    bool untried_ = false;
    // Of an entry that was not seen to be on disk: the store's index and its record there.
    int index_ = -1;
    KeyText name_;
    // Where the bytes of an image's file have to be compared.
    struct Comparison {
        int original = -1;  // not ours to close
        sys::FileIdentity file;
        int index = -1;  // the store's
        ImageMatch match;
        u64 done = 0;  // bytes
    };
    mutable Comparison comparison_;
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

    // Finds the entry of a region, whose original file is open. Outcome no_entry when there is none
    // for this file as it is; `buildable` when writing the entry would help.
    Outcome find(const Region &region, int original, const sys::FileIdentity &file, Shared &shared,
                 Entry *entry) const;
    bool is_writable() const { return sys::may_write(index_, ".").ok(); }

private:
    int version_ = -1, index_ = -1;
    bool in_memory_ = false;
};

}  // namespace pht
