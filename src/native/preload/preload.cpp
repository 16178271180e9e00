// The engine in any program. glibc runs the constructors of a preloaded library after those of all
// libraries that were loaded at start, since none of them needs it, and before main(); musl runs it
// before them, and what they open is found as what main() opens.
#include "preload/preload.h"

#include <pthread.h>
#include <unistd.h>

#include "preload/dlsym.h"
#include "preload/loaded.h"

namespace pht::preload {

namespace {

bool started;  // here, and not by another host in this process

// Whether somebody watches the program's memory who would not know what the swapping does to it.
bool is_watched() {
    if (sys::under_valgrind()) return true;
    constexpr const char *kInits[] = {"__asan_init", "__tsan_init", "__msan_init", "__hwasan_init"};
    for (const char *name : kInits)
        if (find_loaded(name)) return true;
    return false;
}

[[gnu::constructor]] void begin() {
    find_dlsym();
    // A program that has more rights than who started it is left alone, and one that was told to
    // be.
    if (Settings::silently_off(environ) || getauxval(AT_SECURE) || !has_own_engine()) return;
    started = true;
    // Where the program is a Python, or has one inside, it is served as one.
    const u64 interpreter = find_loaded("Py_IsInitialized");
    if (interpreter) own_engine.interpreter_at(interpreter);
    const bool watched = is_watched();
    if (watched) Engine::get().stand_aside(Status::watched);
    start(settings_of_process(), kNoSignals, !interpreter);
    if (watched || !Engine::get().started()) return;
    pthread_atfork(nullptr, nullptr, forget_looking);
    watch_dlsym();
}

[[gnu::destructor]] void end() {
    if (started) write_report(Settings::of_process());
}

}  // namespace

}  // namespace pht::preload
