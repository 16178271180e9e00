// Whether the kernel can take an original itself, so that nothing has to be copied; and what that
// means for its entry.
#pragma once

#include "builder/index.h"
#include "builder/wanted.h"

namespace pht {

// Whether all text of the file, laid out for a load bias, lies at offsets that 2 MiB pages can be
// mapped from, and the kernel collapsed it all in the page cache just now (Linux 7.2 on file
// systems with large folios, tmpfs, and READ_ONLY_THP_FOR_FS; see madvise(2), MADV_COLLAPSE).
bool takes_itself(int original, const Layout &layout);

// What came of it at a start that tried the original itself (Itself::taken or to_note). The entry
// of one that is taken goes, and who runs from it goes on to; but while no kernel was asked,
// somebody has asked for it: it stays. Of one that is not, the record names this kernel.
void settle_trial(const StoreWriter &writer, const Wanted &wanted, Boot &boot);

}  // namespace pht
