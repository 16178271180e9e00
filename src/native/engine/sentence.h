// An outcome in words, for lines and reports that are made without Python.
#pragma once

#include "kernel/strings.h"
#include "words/status.h"

namespace pht {

using Line = Buffer<3500>;

// "kernel said no: mremap failed: EPERM (Operation not permitted)"
void add_sentence(const Outcome &outcome, Line *out);

}  // namespace pht
