// One entry: the copy of one file for one load bias, and the record that leads to it. All of it
// with the writer's lock held.
#pragma once

#include "builder/room.h"

namespace pht {

// Which file, and where it is loaded.
struct Wanted {
    const char *path = nullptr;  // absolute, NUL-terminated
    u64 bias = 0;                // load bias modulo 2 MiB
    sys::FileIdentity file;      // as it was mapped; inode 0: whatever has the path
};

struct Added {
    Buffer<1024> path;     // of the copy, below v1
    u64 size = 0;          // of the copy
    u64 written = 0;       // 0 where a copy of the same content was there
    u64 mappable = ~0ull;  // the offset of the first 2 MiB of it that can be mapped huge
    KeyText key;
};

// Opens the file that is wanted and makes sure that it is the one that was mapped.
Trouble open_original(const Wanted &wanted, int *fd, sys::FileIdentity *file);

// Builds the entry of one file, or ties it to a copy of the same content that is there. Nothing is
// left where that fails.
Trouble add_entry(const StoreWriter &writer, const Wanted &wanted, bool durable, const Keep &keep,
                  Boot &boot, Added *added);

// Makes an entry of this boot durable: its copy goes to disk first, then its record says so.
Trouble promote_entry(const StoreWriter &writer, const char *name, StoredFile &stored);

// Whether this file, as it is, has entries for several load addresses already, each a whole copy.
bool has_too_many_biases(const StoreWriter &writer, const sys::FileIdentity &file, u64 bias);

// Opens the copy at a path below v1, which must be one that nobody else can write.
ErrorOr<int> open_copy_at(const StoreWriter &writer, const char *path, sys::FileIdentity *file,
                          Trouble *problem);

}  // namespace pht
