// Whether the kernel can take an original itself, so that nothing has to be copied.
#pragma once

#include "builder/layout.h"

namespace pht {

// Whether all text of the file, laid out for a load bias, lies at offsets that 2 MiB pages can be
// mapped from, and the kernel collapsed it all in the page cache just now (Linux 7.2 on file
// systems with large folios, tmpfs, and READ_ONLY_THP_FOR_FS; see madvise(2), MADV_COLLAPSE).
bool takes_itself(int original, const Layout &layout);

}  // namespace pht
