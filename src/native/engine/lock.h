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

// dl_iterate_phdr(3) for who holds the lock.
void iterate_objects(int (*visit)(dl_phdr_info *, size_t, void *), void *data);

// fork() waits for the lock, so that a child never sees half a pass. Where it cannot be had, the
// child's engine is never used.
void watch_forks();
// Nor is it in the middle of building.
void watch_forks_while_building();

// What is read without the lock is written so under it.
template <class T> void set(T *where, T value) {
    __atomic_store_n(where, value, __ATOMIC_RELAXED);
}

}  // namespace pht
