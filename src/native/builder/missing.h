// What a process does about entries that its stores lack: builds them now, or says why not.
//
// Synchronously, as .pyc files are written; no thread, no process, no fsync; as long as the request
// allows, and what was not reached is left to the next starts. What a machine cannot do is found
// out once and remembered in the store.
#pragma once

#include "builder/wanted.h"
#include "words/request.h"
#include "words/status.h"

namespace pht {

// Who asked. None of these is called with a lock of the process held.
struct BuildHost {
    void *context;
    // Whether to stop: the program wants to go on. Called between two entries.
    bool (*stops)(void *context);
    // Another process may have built some: looks again, and lists what still waits.
    void (*look_again)(void *context, WantedList *wanted);
    // A sentence for statistics: why something was not built.
    void (*tell)(void *context, Str reason);
};

// Builds what is wanted into the stores of the request. False where the host stopped it.
bool build_missing(const Request &request, const BuildHost &host, WantedList *wanted);

}  // namespace pht
