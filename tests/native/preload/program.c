// What programs do with libraries they open, a case a word; run with the preload library and without,
// each has to say the same. libbig.so and the plugins lie in the directory that argv[2] names.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef long (*sum_function)(int);
static const char *place;

static void *open_here(const char *name, int flags) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", place, name);
    void *library = dlopen(path, flags);
    if (!library) printf("not opened: %s\n", name);
    return library;
}

static sum_function find(void *library, const char *name) {
    sum_function found;
    *(void **)&found = dlsym(library, name);
    return found;
}

static long use_big(void) {
    void *big = open_here("libbig.so", RTLD_NOW | RTLD_LOCAL);
    sum_function sum = big ? find(big, "f_sum") : NULL;
    return sum ? sum(7) : -1;
}

static int plain(void) {
    printf("sum %ld\n", use_big());
    return 3;
}

// A library opens another by its bare name, which only its own RUNPATH leads to.
static int runpath(void) {
    void *caller = open_here("libcaller.so", RTLD_NOW);
    printf("by the caller's RUNPATH %ld\n", find(caller, "open_plugin")(1));
    printf("not by ours %d\n", dlopen("libplugin.so", RTLD_NOW | RTLD_NOLOAD) != NULL);
    return 0;
}

// `value` is in this program's libraries twice; the first one asks for the next.
static int next(void) {
    printf("value %ld\n", find(RTLD_DEFAULT, "value")(5));
    printf("behind this program %ld\n", find(RTLD_NEXT, "value")(5));
    return 0;
}

// RTLD_DEFAULT means something else to who was opened RTLD_LOCAL.
static int local(void) {
    void *caller = open_here("libcaller.so", RTLD_NOW | RTLD_LOCAL);
    printf("seen from within %ld\n", find(caller, "find_own")(1));
    printf("seen from here %d\n", dlsym(RTLD_DEFAULT, "own_secret") != NULL);
    printf("of libc %d\n", dlsym(RTLD_DEFAULT, "strtol") == (void *)strtol);
    return 0;
}

// What a failed call leaves, also where libraries are looked at in it.
static int errors(void) {
    errno = 77;
    printf("%d %s\n", dlsym(RTLD_DEFAULT, "no_such_function") == NULL, dlerror());
    printf("errno %d, told once %d\n", errno, dlerror() == NULL);
    dlsym(RTLD_DEFAULT, "no_such_function");
    printf("sum %ld\n", use_big());
    printf("after one that went well: %s\n", dlerror() ? "an error" : "none");
    open_here("libplugin.so", RTLD_NOW);
    errno = 78;
    printf("null %d\n", dlsym(RTLD_NEXT, "nor_this_one") == NULL);
    printf("errno %d %s\n", errno, dlerror());
    return 0;
}

#ifdef __GLIBC__
static int namespaces(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s/libcaller.so", place);
    void *caller = dlmopen(LM_ID_NEWLM, path, RTLD_NOW);
    if (!caller) return 77;
    sum_function own = find(caller, "find_own"), of_libc = find(caller, "find_libc");
    printf("seen from within %ld\n", own ? own(1) : -1);
    printf("another libc %ld\n", of_libc ? of_libc((int)(size_t)strtol) : -1);
    printf("sum %ld\n", use_big());
    Lmid_t base = -1, other = -1;
    dlinfo(caller, RTLD_DI_LMID, &other);
    dlinfo(dlopen(NULL, RTLD_NOW), RTLD_DI_LMID, &base);
    printf("namespaces %d\n", base == LM_ID_BASE && other != base);
    return 0;
}

static int versions(void) {
    const char *const base = sizeof(void *) == 8 && strstr(place, "aarch64") ? "GLIBC_2.17" : "GLIBC_2.2.5";
    printf("%d\n", dlvsym(RTLD_DEFAULT, "strtol", base) == (void *)strtol);
    printf("%d\n", dlvsym(RTLD_DEFAULT, "strtol", "GLIBC_9.9") == NULL);
    printf("sum %ld\n", use_big());
    return 0;
}

#else  // musl has neither
static int namespaces(void) { return 77; }
static int versions(void) { return 77; }
#endif

// A filter that kills for what swapping takes.
static int filtered(void) {
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mremap, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_memfd_create, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) return 77;
    printf("sum %ld\n", use_big());
    return 4;
}

// A process that opened a library and then locked itself up: any other call kills.
static int locked(void) {
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_write, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_exit_group, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    printf("locked\n");
    fflush(stdout);
    if (!open_here("libbig.so", RTLD_NOW)) return 1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) return 77;
    _exit(dlsym(RTLD_DEFAULT, "strtol") == (void *)strtol ? 7 : 8);
}

static int closing(void) {
    for (int fd = 3; fd < 1024; ++fd) close(fd);
    printf("sum %ld\n", use_big());
    printf("first free %d\n", open("/dev/null", O_RDONLY));
    return 0;
}

static int daemon_(void) {
    int ends[2];
    char line[64] = {0};
    if (pipe(ends)) return 77;
    if (fork() == 0) {
        setsid();
        if (fork()) _exit(0);
        dup2(ends[1], 9);
        close(0), close(1), close(2), close(ends[0]), close(ends[1]);
        if (chdir("/")) _exit(1);
        snprintf(line, sizeof line, "sum %ld", use_big());
        if (write(9, line, strlen(line)) < 0) _exit(1);
        exit(0);
    }
    close(ends[1]);
    wait(NULL);
    if (read(ends[0], line, sizeof line - 1) < 0) return 1;
    printf("the daemon: %s\n", line);
    // Until it is gone, and has written its report.
    if (read(ends[0], line, sizeof line) != 0) return 1;
    return 0;
}

static void *ask(void *library) {
    long wrong = 0;
    for (int i = 0; i < 2000; ++i) wrong += find(library, "f_1")(i) != i * 3 + 1;
    return (void *)wrong;
}

static int threads(void) {
    void *big = open_here("libbig.so", RTLD_NOW);
    pthread_t ids[8];
    long wrong = 0;
    for (int i = 0; i < 8; ++i) pthread_create(&ids[i], NULL, ask, big);
    for (int i = 0; i < 20; ++i) {
        void *plugin = open_here("libplugin.so", RTLD_NOW);
        if (find(plugin, "plugin_value")(i) != i + 40) ++wrong;
        if (fork() == 0) _exit(find(plugin, "plugin_value")(1) != 41);
        int status;
        wait(&status);
        wrong += status;
        dlclose(plugin);
    }
    for (int i = 0; i < 8; ++i) {
        void *result;
        pthread_join(ids[i], &result);
        wrong += (long)result;
    }
    printf("wrong %ld\n", wrong);
    return 0;
}

static int ready[2], done_[2];

static int wait_in_list(struct dl_phdr_info *info, size_t size, void *data) {
    char byte;
    (void)info, (void)size, (void)data;
    return write(ready[1], "", 1) != 1 || read(done_[0], &byte, 1) != 1 ? 2 : 1;
}

static void *list(void *data) {
    dl_iterate_phdr(wait_in_list, data);
    return NULL;
}

// A fork while another thread holds the lock of dl_iterate_phdr(3), which glibc leaves held in the
// child; dlsym(3) does not need it.
static int listed(void) {
    char byte;
    pthread_t id;
    void *big = open_here("libbig.so", RTLD_NOW);
    if (pipe(ready) || pipe(done_) || pthread_create(&id, NULL, list, NULL)) return 77;
    if (read(ready[0], &byte, 1) != 1) return 77;
    fflush(stdout);
    if (fork() == 0) {
        printf("in the child %ld\n", find(big, "f_1")(2));
        exit(0);
    }
    int status;
    wait(&status);
    if (write(done_[1], "", 1) != 1) return 77;
    pthread_join(id, NULL);
    printf("status %d, in the parent %ld\n", status, find(big, "f_1")(3));
    return 0;
}

static int count(struct dl_phdr_info *info, size_t size, void *data) {
    (void)info, (void)size;
    ++*(int *)data;
    return 0;
}

static int enough;

static void *ask_on(void *library) {
    while (!__atomic_load_n(&enough, __ATOMIC_RELAXED)) find(library, "f_1")(1);
    return NULL;
}

// The other way round: what threads that ask for functions hold at a fork is not held in the child.
static int forks(void) {
    pthread_t ids[2];
    int wrong = 0;
    void *big = open_here("libbig.so", RTLD_NOW);
    for (int i = 0; i < 2; ++i) pthread_create(&ids[i], NULL, ask_on, big);
    for (int i = 0; i < 500; ++i) {
        int status, objects = 0;
        if (fork() == 0) _exit(dl_iterate_phdr(count, &objects) || objects < 3);
        wait(&status);
        wrong += status != 0;
    }
    __atomic_store_n(&enough, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 2; ++i) pthread_join(ids[i], NULL);
    printf("wrong %d\n", wrong);
    return 0;
}

static void in_handler(int number) {
    (void)number;
    printf("in a handler %ld\n", use_big());
}

static int handler(void) {
    signal(SIGUSR1, in_handler);
    raise(SIGUSR1);
    return 0;
}

static int child(void) {
    if (vfork() == 0) _exit(0);
    wait(NULL);
    use_big();
    fflush(stdout);
    if (fork() == 0) {
        printf("in the child %ld\n", use_big());
        exit(0);
    }
    wait(NULL);
    return 0;
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        int (*run)(void);
    } cases[] = {{"plain", plain},       {"runpath", runpath}, {"next", next},
                 {"local", local},       {"errors", errors},   {"namespaces", namespaces},
                 {"versions", versions}, {"closing", closing}, {"filtered", filtered},
                 {"daemon", daemon_}, {"locked", locked},    {"threads", threads}, {"handler", handler},
                 {"listed", listed},     {"forks", forks},
                 {"child", child}};
    if (count < 3) return 99;
    place = arguments[2];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i)
        if (!strcmp(arguments[1], cases[i].name)) return cases[i].run();
    return 98;
}
