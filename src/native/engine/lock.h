// The engine's lock, in its relation to the dynamic linker's.
//
// The engine calls dl_iterate_phdr while it is locked. A program may do it the other way round:
// what it runs inside a callback of dl_iterate_phdr holds the dynamic linker's lock, and may
// import, fork, or ask for statistics. Two threads that do both wait for each other for ever;
// nobody can tell whether a thread holds the dynamic linker's lock. So whoever waits for the engine
// gives up once its holder has waited for the dynamic linker for a second, which nothing else
// takes.
#pragma once

#include <link.h>

#include "kernel/sys.h"

namespace pht {

// Holds the lock for a scope, if ok(). Signals first: a handler that forks while its own thread
// holds the lock would never return.
class Locked : NonCopyable {
public:
    enum class Wait : u8 { patiently, never };
    explicit Locked(Wait wait = Wait::patiently);
    ~Locked();
    bool ok() const { return held_; }

private:
    sys::SignalsBlocked signals_;
    bool held_;
};

using Visitor = int (*)(dl_phdr_info *, size_t, void *);

// dl_iterate_phdr(3) for who holds the lock.
void iterate_objects(Visitor visit, void *data);
// And for who does not. Does nothing, and returns false, while a thread forks: glibc gives a child
// the lock that dl_iterate_phdr takes as it was, and what was held by a thread that the child does
// not have is held for good.
bool iterate_unlocked(Visitor visit, void *data);

// Whether that may have been done to this process by a thread of the program's: it is the child of
// one with several threads. Who calls dl_iterate_phdr here, where the program would not have, may
// wait for ever. Known to be well once it was called all the same, and came back.
bool linker_lock_may_be_lost();

// fork() waits for the lock, so that a child never sees half a pass. Where it cannot be had, the
// child's engine is never used. Nor does it come in the middle of iterate_unlocked().
void watch_forks();
// Nor is it in the middle of building.
void watch_forks_while_building();

// What is read without the lock is written so under it.
template <class T> void set(T *where, T value) {
    __atomic_store_n(where, value, __ATOMIC_RELAXED);
}

}  // namespace pht
