#include "engine/lock.h"

#include <dlfcn.h>
#include <pthread.h>
#include <time.h>

namespace pht {

namespace {

constexpr u64 kPatience = 1000000000;  // nanoseconds
constexpr long kTurn = 20000000;

pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
u64 tickets;        // of waits for the dynamic linker, counted by whoever holds the lock
u64 waiting;        // the ticket of the one that lasts; 0: none
pthread_t forking;  // the thread that holds the lock for a fork
bool is_forking;
bool lost;  // forked without it

// Both are written before the other is read, in one order for all threads.
u32 unlocked;  // threads in iterate_unlocked()
u32 forks;     // threads that are about to fork, or in it

// What glibc since 2.32 tells allocators; where there is none, there may be threads. musl's fork()
// waits for the dynamic linker's lock.
const char *single_threaded;
bool linker_lost;
#ifdef __GLIBC__
constexpr bool kForkKeepsLinker = false;
#else
constexpr bool kForkKeepsLinker = true;
#endif

// The same ticket all the time is a holder that does not come on.
bool acquire() {
    if (__atomic_load_n(&lost, __ATOMIC_RELAXED)) return false;
    if (pthread_mutex_trylock(&mutex) == 0) return true;
    u64 seen = 0, since = 0;
    for (;;) {
        timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += kTurn;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            ++until.tv_sec;
        }
        if (pthread_mutex_timedlock(&mutex, &until) == 0) return true;
        const u64 ticket = __atomic_load_n(&waiting, __ATOMIC_RELAXED);
        if (ticket == 0 || ticket != seen) {
            seen = ticket;
            since = sys::now();
        } else if (sys::since(since) > kPatience) {
            return false;
        }
    }
}

// Those that wait for the dynamic linker may wait for this thread: it may be in a callback.
void wait_for_unlocked() {
    if (!__atomic_load_n(&unlocked, __ATOMIC_SEQ_CST)) return;  // without a system call
    const u64 since = sys::now();
    while (__atomic_load_n(&unlocked, __ATOMIC_SEQ_CST) && sys::since(since) < kPatience)
        (void)sys::pause(10'000);
}

void before_fork() {
    __atomic_fetch_add(&forks, 1, __ATOMIC_SEQ_CST);
    wait_for_unlocked();
    if (!acquire()) return;
    forking = pthread_self();
    __atomic_store_n(&is_forking, true, __ATOMIC_RELEASE);
}

bool is_mine() {
    return __atomic_load_n(&is_forking, __ATOMIC_ACQUIRE) && pthread_equal(forking, pthread_self());
}

void give_back() {
    __atomic_store_n(&is_forking, false, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&mutex);
}

void after_fork() {
    if (is_mine()) give_back();
    __atomic_fetch_sub(&forks, 1, __ATOMIC_SEQ_CST);
}

void after_fork_in_child() {
    if (is_mine())
        give_back();
    else
        lost = true;  // another thread had it, which is not here, in the middle of something
    forks = unlocked = 0;
    if (!kForkKeepsLinker && !(single_threaded && *single_threaded)) linker_lost = true;
}

struct Iteration {
    Visitor visit;
    void *data;
};

int arrive(dl_phdr_info *info, size_t size, void *data) {
    const auto *iteration = static_cast<const Iteration *>(data);
    __atomic_store_n(&waiting, 0, __ATOMIC_RELAXED);
    return iteration->visit(info, size, iteration->data);
}

}  // namespace

Locked::Locked(Wait wait)
    : held_(wait == Wait::patiently ? acquire() : !lost && pthread_mutex_trylock(&mutex) == 0) {}

Locked::~Locked() {
    if (held_) pthread_mutex_unlock(&mutex);
}

void iterate_objects(Visitor visit, void *data) {
    Iteration iteration = {visit, data};
    __atomic_store_n(&waiting, ++tickets, __ATOMIC_RELAXED);
    dl_iterate_phdr(arrive, &iteration);
    __atomic_store_n(&waiting, 0, __ATOMIC_RELAXED);
    set(&linker_lost, false);
}

bool iterate_unlocked(Visitor visit, void *data) {
    __atomic_fetch_add(&unlocked, 1, __ATOMIC_SEQ_CST);
    const bool may = !__atomic_load_n(&forks, __ATOMIC_SEQ_CST);
    if (may) dl_iterate_phdr(visit, data);
    __atomic_fetch_sub(&unlocked, 1, __ATOMIC_SEQ_CST);
    if (may) set(&linker_lost, false);
    return may;
}

bool linker_lock_may_be_lost() {
    return __atomic_load_n(&linker_lost, __ATOMIC_RELAXED);
}

void watch_forks() {
    single_threaded = static_cast<const char *>(dlsym(RTLD_DEFAULT, "__libc_single_threaded"));
    if (!single_threaded) (void)dlerror();  // not the program's
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

}  // namespace pht
