// One entry: the copy of one file for one load bias, and the record that leads to it. All of it
// with the writer's lock held.
#pragma once

#include "builder/growth.h"
#include "builder/room.h"

namespace pht {

struct Added {
    Buffer<1024> path;         // of the copy, below v1
    u64 size = 0;              // of the copy
    u64 written = 0;           // 0 where all was there
    MappedArray<Range> texts;  // what was added, or found the same, of what can be mapped huge
    bool whole = false;        // whether all that is wanted is there
    bool serves = false;       // whether an earlier one does, where nothing could be added
    KeyText key;
};

// Builds the entry of one file, or ties it to a copy of the same content that is there, or adds to
// it what it lacks; as much as there is time for. Where that fails nothing is left of a new entry,
// and an old one stays as it was.
Trouble add_entry(const StoreWriter &writer, const Wanted &wanted, bool durable, const Keep &keep,
                  Deadline &deadline, Boot &boot, Added *added);

// Makes an entry of this boot durable: its copy goes to disk first, then its record says so.
Trouble promote_entry(const StoreWriter &writer, const char *name, StoredFile &stored);

}  // namespace pht
