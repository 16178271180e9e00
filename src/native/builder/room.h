// Room for a new copy: how much a store may take, and which copies go for others.
#pragma once

#include "builder/index.h"
#include "builder/object.h"

namespace pht {

// Names of records that are not evicted to make room: what one run of `pyhugetext warm` prepares.
class Keep {
public:
    [[nodiscard]] bool add(Str name) {
        return names_.append(name.data, name.size) && names_.push('\0');
    }
    bool has(const char *name) const {
        for (size_t at = 0; at < names_.size(); at += length(names_.data() + at) + 1)
            if (equal(str(names_.data() + at), str(name))) return true;
        return false;
    }

private:
    MappedArray<char> names_;
};

// Disk (or memory) that the copies take.
u64 used_bytes(const StoreWriter &writer);

// Bytes of a file system that copies may take: what is free above a floor, below 0 where it is
// less. A small file system keeps a tenth of itself free.
long long free_bytes(const sys::FileSystem &system);

// Evicts what was least recently used until there is room. Kind full where they cannot, and
// nothing is evicted then: programs that need more than there is room for must not build their
// entries over each other's at every start. The lock must be held.
//
// `more` bytes are asked for, of a copy that will have `whole`, and is at the path `stays` if it is
// there already. For what is not `urgent` nothing is evicted.
struct Need {
    u64 more, whole;
    const char *stays;
    bool urgent;
};
Trouble make_room(const StoreWriter &writer, const Need &need, const Keep &keep, Boot &boot);

// Whether this file, as it is, has entries for several load addresses already, each a whole copy.
bool has_too_many_biases(const StoreWriter &writer, const sys::FileIdentity &file, u64 bias);

// When a copy was last used, in seconds since the epoch: what its records say, which only their
// owner can touch, and its access time, which any process sets that maps it, once a day (relatime
// of mount(8); where that is turned off, use by other users is not seen).
u64 last_use(const StoreWriter &writer, const Index &index, const char *path);

// Removes a copy and its records. Returns the bytes freed.
u64 drop_copy(const StoreWriter &writer, const Index &index, const char *path);

// Removes a record, and its copy when no other record has it. Returns the bytes freed.
u64 drop_record(const StoreWriter &writer, const char *name, Boot &boot);

// Removes copies without a record, left by killed builders, but the one at the path `stays`.
// Returns the bytes freed.
u64 drop_orphan_copies(const StoreWriter &writer, const Index &index, const char *stays);

// Removes the directory of a copy, objects/<name>. Returns the bytes freed.
u64 drop_object(const StoreWriter &writer, const char *path);

}  // namespace pht
