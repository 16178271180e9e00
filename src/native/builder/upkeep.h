// Looking through a store: what it holds, what of it is still good, and what can go.
#pragma once

#include "builder/warm.h"

namespace pht {

// Of an entry: ready to be mapped; its original was changed or is gone; never known to be on disk
// and of another boot; not what was written. Of a note: believed, or out of date.
enum class State : u8 { ready, stale, expired, damaged };
inline constexpr const char *kStateNames[] = {"ready", "stale", "expired", "damaged"};

struct EntryView {
    const IndexItem *item = nullptr;
    const char *name = "", *path = "", *origin = "", *kernel = "";
    State state = State::ready;
    Buffer<400> reason;  // empty where there is nothing to say; of a note: why there is no entry
    u64 size = 0, disk = 0;   // of the copy, bytes
    u64 built = 0, used = 0;  // seconds since the epoch
    // 2 MiB pages of text that the file has, and that are there.
    size_t pages = 0, present = 0;
};

struct RemovedView {
    const char *what;  // an absolute path, one below the root (v1/...), or a name of the index
    const char *why;
    u64 freed;  // bytes
};

// Calls visit for all entries and notes, without comparing content.
Trouble each_entry(const StoreWriter &writer, void (*visit)(void *, const EntryView &),
                   void *context);

// Compares an entry with its original, byte for byte, and removes it where it is damaged. visit is
// called unless the entry is gone.
Trouble verify_entry(StoreWriter &writer, const char *name,
                     void (*visit)(void *, const EntryView &), void *context, bool *removed);

// Removes what no process can use any more, what the store on disk has, too (see served.h),
// leftovers, and the least recently used entries above the limit; visit is told of each.
Trouble prune_store(StoreWriter &writer, void (*visit)(void *, const RemovedView &), void *context);

// Removes the whole store. Processes that run from it go on: their copies stay until they end.
Trouble clear_store(StoreWriter &writer, u64 *freed);

}  // namespace pht
