// Why a store is not trusted, for a person; the decision was made on descriptors.
#pragma once

#include "builder/trouble.h"

namespace pht {

// Which step of the way to a directory is to blame.
Trouble explain(const char *root);
// The same for a directory of a store, which is v1 or in it.
Trouble explain_below(const char *root, const char *name);

}  // namespace pht
