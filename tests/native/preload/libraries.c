// The small libraries of program.c; which one this becomes is said by a macro.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

typedef long (*function)(int);

static inline function find(void *handle, const char *name) {
    function found;
    *(void **)&found = dlsym(handle, name);
    return found;
}

#ifdef PLUGIN
long plugin_value(int x) { return x + 40; }
#endif

#ifdef CALLER
long own_secret(int x) { return x + 50; }
// Not a tail call: dlsym(3) goes by the address it returns to.
long find_own(int x) {
    function found = find(RTLD_DEFAULT, "own_secret");
    return found ? found(x) : -2;
}
long find_libc(int x) { return (int)(size_t)find(RTLD_DEFAULT, "strtol") != x; }
long open_plugin(int x) {
    void *plugin = dlopen("libplugin.so", RTLD_NOW);
    return plugin ? find(plugin, "plugin_value")(x) : -1;
}
#endif

#ifdef FIRST
long value(int x) { return 100 + find(RTLD_NEXT, "value")(x); }
#endif

#ifdef SECOND
long value(int x) { return x; }
#endif

#ifdef CONSTRUCTOR
__attribute__((constructor)) static void begin(void) {
    static const char said[] = "constructor\n";
    if (write(2, said, sizeof said - 1) < 0) abort();
}
long constructed(int x) { return x; }
#endif

#ifdef ALLOCATOR
// As allocators do that stand in front of the C library's: they find its functions when they are
// first called, which may be before any constructor.
#include <stddef.h>
#include <string.h>
static void *(*real_malloc)(size_t);
static void (*real_free)(void *);
static char early[1 << 16];
static size_t used;
static int finding;
static void *from_early(size_t size) {
    void *at = early + used;
    used += (size + 15) & ~(size_t)15;
    if (used > sizeof early) abort();
    return at;
}
void *malloc(size_t size) {
    if (!real_malloc) {
        if (finding) return from_early(size);
        finding = 1;
        *(void **)&real_malloc = dlsym(RTLD_NEXT, "malloc");
        finding = 0;
        if (!real_malloc) abort();
    }
    return real_malloc(size);
}
void free(void *block) {
    if ((char *)block >= early && (char *)block < early + sizeof early) return;
    if (!real_free) *(void **)&real_free = dlsym(RTLD_NEXT, "free");
    real_free(block);
}
__attribute__((constructor)) static void begin(void) { free(malloc(10)); }
#endif

#ifdef ITERATOR
// And one in front of what the engine itself calls.
#include <link.h>
int dl_iterate_phdr(int (*visit)(struct dl_phdr_info *, size_t, void *), void *data) {
    int (*real)(int (*)(struct dl_phdr_info *, size_t, void *), void *);
    *(void **)&real = dlsym(RTLD_NEXT, "dl_iterate_phdr");
    if (!real) abort();
    return real(visit, data);
}
#endif
