// What a process has used of an entry that is not there yet: noted for the next start.
#pragma once

#include "builder/wanted.h"
#include "builder/writer.h"

namespace pht {

// Adds these pages to what the record of this file wants. Kind gone where there is no such record.
// Waits for nobody.
Trouble want_more(StoreWriter &writer, const Wanted &wanted);

}  // namespace pht
