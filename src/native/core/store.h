// The shared text store as the core sees it: finding an entry for a mapped file, and believing it
// or not. Writing entries is the Python side's business (pyhugetext.store); this is the path every
// process takes, so it is a handful of system calls per library.
//
// Layout below a store's root, all of it owned by the user (or root) and writable by nobody else:
//   v1/index/<identity of the original>   a record, see Record
//   v1/objects/<name>/<basename>          a huge-page-ready copy
#pragma once

#include "pagemap.h"
#include "region.h"

namespace pht {

// The fixed part of a record; the Python side writes the same with struct "<8sII..." (record.py).
struct Record {
    char magic[8];  // kRecordMagic
    u32 size, crc;  // of the whole record; CRC-32 of all behind this field
    u32 dev_major, dev_minor;
    u64 inode, file_size;
    u64 mtime, ctime;  // seconds, as two's complement
    u32 mtime_ns, ctime_ns;
    u64 bias;        // load bias modulo 2 MiB
    u8 boot_id[16];  // zero: the copy is on disk; else: valid during that boot only
    u64 object_size;
    u64 build_id_at;  // file offset of the build-id's bytes in the copy; 0: has none
    u32 build_id_size, header_size;
    u32 range_count, path_size;
    // Behind it: range_count x Range; path_size bytes: the path relative to v1, a NUL and, for
    // people, the original's path and another NUL; header_size bytes, the first of the copy.
};
struct Range {
    u64 address;  // virtual address in the ELF file, less the load bias
    u64 length, offset;
};
// In place of a record: an entry could not be made on this kernel. The kernel's release, the reason
// and the original's path follow, each ended by a newline. Believed for a day.
inline constexpr char kNoteMagic[8] = {'P', 'H', 'T', 'N', 'O', 'N', 'E', '\n'};
inline constexpr char kRecordMagic[8] = {'P', 'H', 'T', 'R', 'E', 'C', '1', '\n'};
inline constexpr size_t kRecordLimit = 16ul * 1024;

// What the stores of a pass have in common.
struct Shared {
    const Pagemap &pagemap;
    bool booted = false;  // whether boot_id was read
    u8 boot_id[16] = {};
};

// One store, opened at most once per pass.
class Store {
public:
    Store() = default;
    ~Store();
    Store(const Store &) = delete;
    Store &operator=(const Store &) = delete;

    // Opens and checks the directories. `root` is absolute and NUL-terminated. In the system's
    // store an entry may also be found by what a container image keeps of a file.
    Outcome open(const char *root, bool system);

    // Maps [target, target + length) of the region, whose original file is `file`, from its entry:
    // somewhere congruent to the target, in *address. Outcome no_entry when there is none for this
    // file as it is; `buildable` when writing the entry would help and the store can be written.
    Outcome map(const Region &region, const sys::FileIdentity &file, Shared &shared, u64 target,
                u64 length, u64 *address) const;

private:
    Outcome map_entry(const Region &region, const sys::FileIdentity &file, Shared &shared,
                      u64 target, u64 length, u64 *address) const;
    int version_ = -1, index_ = -1;
    bool system_ = false;
};

// The stores of one pass: on disk the system's and the user's, in shared memory the user's. Each
// is opened when it is first asked for, and its directories checked then.
class Stores {
public:
    // Where the user's store is, or would be, on overlayfs, nothing is buildable unless told so: a
    // container would build at every start into a layer that is thrown away. Nor is it where a
    // limit of memory is near: the modules that build stay, and the program may need the room.
    Stores(const Array<char> &disk, const Array<char> &shm, bool on_overlay, bool when_cramped,
           const Pagemap &pagemap);

    // As Store::map, from the first store of that kind that has an entry; else the outcome that
    // says most: what was wrong with an entry rather than that there is none.
    Outcome map(Backing backing, const Region &region, const sys::FileIdentity &file, u64 target,
                u64 length, u64 *address) const;

private:
    // Why nothing is built; done() where it is.
    Outcome may_build() const;
    static constexpr int kMost = 4;
    struct Place {
        const char *root = nullptr;
        Backing backing = Backing::none;
        bool system = false;  // the first on disk: an administrator fills it, never start-up
        Store store;
        Outcome opened;
    };
    mutable Place places_[kMost];
    mutable Shared shared_;
    int count_ = 0;
    bool on_overlay_, when_cramped_;
};

}  // namespace pht
