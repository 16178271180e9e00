// What a store in shared memory has of files that the disk's serves as well.
#pragma once

#include "builder/upkeep.h"
#include "words/request.h"

namespace pht {

// Removes from a store in shared memory, whose lock is held, the entries and notes of files whose
// copy in the store at spec().better is whole, except what a process maps: whatever it was that
// kept one from the disk, the others need not pay for it in memory. visit is told of each.
void drop_served(const StoreWriter &memory, void (*visit)(void *, const RemovedView &),
                 void *context);

// The same for the stores of this process, at its start: one system call where there is nothing in
// shared memory, or others have looked lately.
void tidy_memory(const Request &request);

}  // namespace pht
