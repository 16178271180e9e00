// The stores as the binding sees them: what people ask for (pyhugetext warm, store, doctor).
// Each call opens the store anew, so that no descriptor is held between two of them.
#pragma once

#include "builder/heal.h"
#include "builder/upkeep.h"
#include "builder/verdict.h"

namespace pht {

struct StoreApi {
    // Opens the store, and makes what is missing if told so. Kind gone where there is none; the way
    // to it is looked at all the same.
    Trouble (*open)(const StoreSpec &spec, bool make);
    // As in upkeep.h.
    Trouble (*each_entry)(const StoreSpec &spec, void (*visit)(void *, const EntryView &),
                          void *context);
    Trouble (*verify_entry)(const StoreSpec &spec, const char *name,
                            void (*visit)(void *, const EntryView &), void *context, bool *removed);
    Trouble (*prune)(const StoreSpec &spec, void (*visit)(void *, const RemovedView &),
                     void *context);
    Trouble (*clear)(const StoreSpec &spec, u64 *freed);
    // As warm_entry(); `keep` has the names, each ended by a NUL, of the records that stay.
    void (*warm)(const StoreSpec &spec, const Wanted &wanted, Str keep, Made *made);
    // As in verdict.h; judge takes the writer's lock.
    Trouble (*judge)(const StoreSpec &spec, Verdict *verdict);
    Verdict (*remembered_verdict)(const StoreSpec &spec);
    Trouble (*remember)(const StoreSpec &spec, Verdict verdict);
    Trouble (*try_file)(int fd, Verdict *verdict);
    Trouble (*used_bytes)(const StoreSpec &spec, u64 *bytes);
    // As in heal.h.
    Trouble (*heal_entry)(const StoreSpec &spec, const char *name, Healed *healed);
    // Of the file system of an open directory; see room.h.
    Trouble (*free_bytes)(int directory, long long *bytes);
};

extern const StoreApi store_api;  // NOLINT(bugprone-dynamic-static-initializers): constants

}  // namespace pht
