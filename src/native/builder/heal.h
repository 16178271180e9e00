// Getting what the page cache has of a store's copies back onto 2 MiB pages; see store/mend.h.
#pragma once

#include "builder/index.h"

namespace pht {

// Of one entry, in 2 MiB pages: those that its copy has, those of them that were in memory, and
// how many of those are huge, before and now.
struct Healed {
    u64 pages = 0, cached = 0, before = 0, after = 0;
    Buffer<400> reason;  // why some are small still; empty where none is
};

// Mends the copy of one entry, as long as it takes. Kind gone where there is no such entry.
Trouble heal_entry(const StoreWriter &writer, const char *name, Healed *healed);

}  // namespace pht
