// Moving built content over live text, and putting the original back. Both may run while other
// threads execute the text: every step is one mremap(MREMAP_MAYMOVE | MREMAP_FIXED), during which
// the kernel lets no page fault see the place empty.
#pragma once

#include "elf/region.h"
#include "text/build.h"

namespace pht {

// Moves what was built for the region (region.staged, pages marked ready) into place. Pages that
// were changed in memory meanwhile stay as they are, with Status::modified. Leaves no aside.
void commit(Region &region, const Pagemap &pagemap, MapsQuery &query);

// Puts the original mappings back under all swapped pages whose content nobody changed. A page
// that cannot be put back stays on its huge page; its outcome says why.
void restore(Region &region, const Sources &sources);

}  // namespace pht
