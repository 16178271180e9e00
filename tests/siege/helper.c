/* What Python cannot do by itself, for the siege: as a shared library a profiler's signal handler,
   a uprobe, and a thread that asks the dynamic linker; with -DPROGRAM what traces another process,
   forks beside such a thread, or does nothing.

     helper nothing            exits with 7
     helper lists|asks FORKS SEED LIBRARY OTHER   exits with 7 where every child had right results
     helper attach PID         stops every thread for a moment
     helper break PID ADDRESS HITS   says "armed", counts, takes the breakpoint away, exits with 7
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static pthread_t asker;
static int enough;

static int count(struct dl_phdr_info *info, size_t size, void *data) {
    (void)info, (void)size;
    ++*(int *)data;
    return 0;
}

static void *list_on(void *data) {
    int objects = 0;
    while (!__atomic_load_n(&enough, __ATOMIC_RELAXED)) dl_iterate_phdr(count, &objects);
    return data;
}

static void *ask_on(void *data) {
    while (!__atomic_load_n(&enough, __ATOMIC_RELAXED))
        if (!dlsym(RTLD_DEFAULT, "printf") || dlsym(RTLD_DEFAULT, "siege_has_none")) return data;
    return 0;
}

/* A thread that lists all objects, or asks for functions, until ask_end(), which returns 0. */
int ask_begin(int lists) {
    __atomic_store_n(&enough, 0, __ATOMIC_RELAXED);
    return pthread_create(&asker, 0, lists ? list_on : ask_on, lists ? 0 : (void *)1);
}
int ask_end(void) {
    void *wrong = 0;
    __atomic_store_n(&enough, 1, __ATOMIC_RELAXED);
    return pthread_join(asker, &wrong) || wrong;
}

#ifndef PROGRAM

#include <linux/perf_event.h>

static volatile long ticks, wrong;
static int (*volatile watched)(int);
static volatile int factor;

static void on_tick(int number) {
    (void)number;
    int (*function)(int) = watched;
    ++ticks;
    if (function && function(3) != 3 * factor) ++wrong;
}

/* Every millisecond of processor time `function` is called, which returns 3 * multiplied for 3. */
int profile(int (*function)(int), int multiplied) {
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 1000}, {0, 1000}};
    watched = 0;
    factor = multiplied;
    watched = function;
    return sigaction(SIGPROF, &action, 0) || setitimer(ITIMER_PROF, &often, 0);
}

/* Returns how many results were wrong. */
long profile_end(void) {
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_PROF, &never, 0);
    watched = 0;
    return wrong;
}

/* A descriptor that counts how often this process comes by that place of a file; -errno. */
int uprobe(int type, const char *path, uint64_t offset) {
    struct perf_event_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.size = sizeof attributes;
    attributes.type = (unsigned)type;
    attributes.config1 = (uint64_t)(uintptr_t)path;
    attributes.config2 = offset;
    long fd = syscall(SYS_perf_event_open, &attributes, getpid(), -1, -1, PERF_FLAG_FD_CLOEXEC);
    return fd < 0 ? -errno : (int)fd;
}

#else

#include <dirent.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

static void fail(const char *what) {
    fprintf(stderr, "helper: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int attach(int pid) {
    char path[64];
    int threads[256], count = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *directory = opendir(path);
    if (!directory) fail(path);
    for (struct dirent *entry; count < 256 && (entry = readdir(directory));) {
        int thread = atoi(entry->d_name);
        /* One that has ended meanwhile is none to stop. */
        if (thread > 0 && !ptrace(PTRACE_SEIZE, thread, 0, 0) &&
            !ptrace(PTRACE_INTERRUPT, thread, 0, 0))
            threads[count++] = thread;
    }
    closedir(directory);
    for (int i = 0; i < count; ++i) {
        int status = 0, passed = 0;
        if (waitpid(threads[i], &status, __WALL) != threads[i] || !WIFSTOPPED(status)) continue;
        /* A signal that came first has to reach it. */
        if (!(status >> 16)) passed = WSTOPSIG(status);
        ptrace(PTRACE_DETACH, threads[i], 0, passed);
    }
    return count ? 7 : 1;
}

#ifdef __x86_64__
static int stopped(int pid) {
    int status = 0;
    if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status)) fail("it ended");
    return status;
}

static int breakpoint(int pid, unsigned long at, int wanted) {
    int hits = 0;
    setvbuf(stdout, 0, _IOLBF, 0);
    if (ptrace(PTRACE_SEIZE, pid, 0, 0)) fail("PTRACE_SEIZE");
    if (ptrace(PTRACE_INTERRUPT, pid, 0, 0)) fail("PTRACE_INTERRUPT");
    for (int status; !((status = stopped(pid)) >> 16);)
        ptrace(PTRACE_CONT, pid, 0, WSTOPSIG(status));
    errno = 0;
    long old = ptrace(PTRACE_PEEKTEXT, pid, at, 0);
    if (old == -1 && errno) fail("PTRACE_PEEKTEXT");
    const long armed = (old & ~0xffL) | 0xcc;
    if (ptrace(PTRACE_POKETEXT, pid, at, armed)) fail("PTRACE_POKETEXT");
    puts("armed");
    ptrace(PTRACE_CONT, pid, 0, 0);
    while (hits < wanted) {
        int status = stopped(pid);
        struct user_regs_struct registers;
        ptrace(PTRACE_GETREGS, pid, 0, &registers);
        printf("stopped with %#x at %#llx\n", (unsigned)status, registers.rip);
        if (status >> 16 || WSTOPSIG(status) != SIGTRAP || registers.rip != at + 1) {
            ptrace(PTRACE_CONT, pid, 0, status >> 16 ? 0 : WSTOPSIG(status));
            continue;
        }
        registers.rip = at;
        ptrace(PTRACE_SETREGS, pid, 0, &registers);
        if (ptrace(PTRACE_POKETEXT, pid, at, old)) fail("PTRACE_POKETEXT back");
        int passed = 0;
        ++hits;
        if (hits < wanted) {
            ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
            status = stopped(pid);
            if (!(status >> 16) && WSTOPSIG(status) != SIGTRAP) passed = WSTOPSIG(status);
            if (ptrace(PTRACE_POKETEXT, pid, at, armed)) fail("PTRACE_POKETEXT again");
            ptrace(PTRACE_CONT, pid, 0, passed);
        }
    }
    if (ptrace(PTRACE_DETACH, pid, 0, 0)) fail("PTRACE_DETACH");
    return 7;
}
#else
static int breakpoint(int pid, unsigned long at, int wanted) {
    (void)pid, (void)at, (void)wanted;
    errno = ENOSYS;
    fail("breakpoints of this architecture");
    return 1;
}
#endif

static long compute(void *library) {
    long (*check)(int) = library ? (long (*)(int))dlsym(library, "s_check") : 0;
    return check ? check(5) : -1;
}

static long compute_there(const char *path) {
    void *library = dlopen(path, RTLD_NOW);
    const long computed = compute(library);
    if (library) dlclose(library);
    return computed;
}

/* glibc leaves a child what a thread held that lists objects, for ever: who loads what is new there
   waits with and without us. What a thread holds that asks for functions is given back. */
static int forks(int lists, int number, unsigned seed, const char *path, const char *other) {
    void *library = dlopen(path, RTLD_NOW);
    const long computed = compute(library), there = compute_there(other);
    if (computed < 0 || there < 0 || ask_begin(lists)) fail("forks");
    while (number-- > 0) {
        int status, objects = 0;
        usleep(rand_r(&seed) % 500);
        const pid_t child = fork();
        if (child == 0) {
            alarm(60);
            if (compute(library) != computed) _exit(1);
            if (lists) _exit(compute_there(path) == computed ? 7 : 2);
            if (compute_there(other) != there) _exit(3);
            _exit(!dl_iterate_phdr(count, &objects) && objects > 2 ? 7 : 4);
        }
        if (child < 0 || waitpid(child, &status, 0) != child) fail("fork");
        if (status != 7 << 8) {
            fprintf(stderr, "helper: a child ended with wait status %d\n", status);
            return 1;
        }
        if (compute_there(other) != there) fail("in the parent");
    }
    return ask_end() ? 1 : 7;
}

int main(int count, char **words) {
    if (count == 6)
        return forks(!strcmp(words[1], "lists"), atoi(words[2]), strtoul(words[3], 0, 0), words[4],
                     words[5]);
    if (count == 3 && !strcmp(words[1], "attach")) return attach(atoi(words[2]));
    if (count == 5 && !strcmp(words[1], "break"))
        return breakpoint(atoi(words[2]), strtoul(words[3], 0, 0), atoi(words[4]));
    return 7;
}

#endif
