// What the hosts of the engine share. Here is the engine of this shared object, for whoever has no
// other; engine_of_process() is the one to use.
#pragma once

#include "host/engine_api.h"

namespace pht {

// One engine a process: that of the first host among the loaded objects, whichever was started
// first. Where its version is another one this object's own, which then stands aside, and says so.
const EngineApi &engine_of_process();
// Whether that is this object's own, and at work.
bool has_own_engine();

// What the environment asks for, read when it is first asked for; from then on copies that are only
// tried are mapped as it allows (PYHUGETEXT_STRICT).
const Settings &settings_of_process();

// Begins as the settings say, unless they turn it off, and tells on stderr where that is asked for.
// `frugal`: in a program that may be a short one, started often; see Request.
void start(const Settings &settings, const Patience &patience, bool frugal);
// Looks for libraries loaded since, and has the entries built that they lack.
void look(const Settings &settings, const Patience &patience);

extern const EngineApi own_engine;  // NOLINT(bugprone-dynamic-static-initializers): constants

}  // namespace pht
