// What the parts of the preload library share.
#pragma once

#include "host/host.h"

namespace pht::preload {

// Nobody waits for what is built but the program itself.
inline constexpr Patience kNoSignals = {[](void *) { return false; }, nullptr};

// Writes what was done, where the settings name a file for it.
void write_report(const Settings &settings);

}  // namespace pht::preload
