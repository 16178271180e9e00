// The engine without Python, for C libraries that no Python here is linked with: a program that
// remaps itself and a library it opens, works with both, and puts all back; with the name of a
// store it builds the library's entry there first. Exit status: 0 when all of it was right, else
// the number of the step that was not.

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/engine.h"

using pht::Backing;
using pht::Engine;
using pht::Table;

namespace {

using Sum = long (*)(long);

struct Seen {
    unsigned long swapped = 0, objects = 0;
};

Seen look(const char *name) {
    Seen seen;
    const pht::Snapshot *taken = Engine::get().take_snapshot(true);
    if (!taken) return seen;
    for (const pht::RegionView &view : taken->regions) {
        const pht::Str path = {taken->text.data() + view.path, view.path_size};
        ++seen.objects;
        for (size_t i = 0; i < view.page_runs; ++i)
            if (pht::equal(pht::basename(path), pht::str(name)) &&
                taken->page_runs[view.first_page_run + i].huge)
                seen.swapped += pht::kHugeSize;
    }
    Engine::free_snapshot(taken);
    return seen;
}

int prove(const char *directory, Backing backing) {
    char path[4096];
    snprintf(path, sizeof path, "%s/libbig.so", directory);
    pht::Request request;
    request.backing = backing;
    request.private_limit = 1ull << 40;
    if (Engine::get().remap(request, Table::Scope::fresh) != 0) return 1;
    if (look("libbig.so").swapped) return 2;
    for (int round = 0; round < 3; ++round) {
        void *library = dlopen(path, RTLD_NOW);
        const auto sum = reinterpret_cast<Sum>(library ? dlsym(library, "f_sum") : nullptr);
        if (!sum) return 3;
        const long before = sum(7);
        size_t missing;
        // In later rounds only where dlclose unmapped it.
        const bool found = Engine::get().stale(true) && Engine::get().poll(&missing);
        if (round == 0 && !found) return 4;
        if (!look("libbig.so").swapped || sum(7) != before) return 5;
        const pid_t child = fork();
        if (child == 0) _exit(look("libbig.so").swapped && sum(7) == before ? 0 : 1);
        int status = 1;
        if (waitpid(child, &status, 0) != child || status != 0) return 6;
        Engine::get().restore();
        if (look("libbig.so").swapped || sum(7) != before) return 7;
        if (Engine::get().remap(request, Table::Scope::candidates) != 0) return 8;
        if (!look("libbig.so").swapped || sum(7) != before) return 9;
        dlclose(library);  // musl keeps it
    }
    printf("objects=%lu swapped=%lu\n", look("libbig.so").objects, look("hosted").swapped);
    return 0;
}

int build(const char *directory, const char *store) {
    char path[4096], stores[4096] = "/nonexistent";
    snprintf(path, sizeof path, "%s/libbig.so", directory);
    const size_t system = strlen(stores) + 1;
    snprintf(stores + system, sizeof stores - system, "%s", store);
    pht::Request request = {};
    request.backing = Backing::store;
    request.building = pht::Building::automatic;
    request.stores = {stores, system + strlen(store) + 1};
    request.store_limit = request.shm_limit = 1ull << 30;
    request.build_time = 1ull << 60;
    void *library = dlopen(path, RTLD_NOW);
    const auto sum = reinterpret_cast<Sum>(library ? dlsym(library, "f_sum") : nullptr);
    if (!sum) return 20;
    const long before = sum(7);
    if (Engine::get().remap(request, Table::Scope::fresh) <= 0) return 21;
    const pht::Patience patience = {[](void *) { return false; }, nullptr};
    if (!Engine::get().complete(patience, true)) return 22;
    if (!look("libbig.so").swapped || sum(7) != before) return 23;
    pht::MappedArray<char> lines;
    Engine::get().report(&lines);
    if (!lines.push('\0') || !strstr(lines.data(), "libbig.so: huge, store, ")) return 24;
    Engine::get().restore();
    return look("libbig.so").swapped || sum(7) != before ? 25 : 0;
}

}  // namespace

int main(int count, char **arguments) {
    if (count != 3) return 99;
    if (arguments[2][0] == '/') return build(arguments[1], arguments[2]);
    for (int i = 0; i < pht::kBackings; ++i)
        if (pht::equal(pht::str(arguments[2]), pht::str(pht::kBackingNames[i])))
            return prove(arguments[1], static_cast<Backing>(i));
    return 98;
}
