// The tail jump in front of dlsym(3).
#pragma once

namespace pht::preload {

// At the start, where nothing else is going on: what tells where it is may take a lock, which a
// fork would take along.
void find_dlsym();
// From now on it has the engine look for libraries that were opened.
void watch_dlsym();
// In a forked child: the thread that looked is not there.
void forget_looking();

}  // namespace pht::preload
