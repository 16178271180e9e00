// The engine in any program. The C library runs the constructors of a preloaded library after those
// of all libraries that were loaded at start, since none of them needs it, and before main().
#include <sys/auxv.h>
#include <unistd.h>

#include "preload/preload.h"

namespace pht::preload {

namespace {

bool started;  // here, and not by another host in this process

[[gnu::constructor]] void begin() {
    // A program that has more rights than who started it is left alone, and one that was told to be.
    if (Settings::silently_off(environ) || getauxval(AT_SECURE) || !has_own_engine()) return;
    started = true;
    own_engine.start(kNoSignals);
}

[[gnu::destructor]] void end() {
    if (started) write_report(Settings::of_process());
}

}  // namespace

}  // namespace pht::preload
