// The engine beside threads, for the sanitizers: some run a library's text, one opens and closes
// another library, one asks for snapshots, while two remap and restore. rounds LIBRARY OTHER
// BACKING ROUNDS; exit status 0 when every result was right.

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "engine/engine.h"

using pht::Backing;
using pht::Engine;
using pht::Table;

namespace {

using Sum = long (*)(long);
std::atomic<bool> stop;
std::atomic<long> calls, wrong_sums, not_opened, refused, busy;

// Who cannot have the lock within its patience is told so, which on a slow machine happens.
void judge(long result) {
    if (result == pht::kBusy)
        ++busy;
    else if (result < 0)
        ++refused;
}

Sum find(void *library) {
    return reinterpret_cast<Sum>(library ? dlsym(library, "f_sum") : nullptr);
}

void run_text(Sum sum, long right) {
    while (!stop) {
        if (sum(7) != right) ++wrong_sums;
        ++calls;
    }
}

void open_and_close(const char *path) {
    while (!stop) {
        void *const library = dlopen(path, RTLD_NOW);
        const Sum sum = find(library);
        if (!sum) ++not_opened;
        size_t missing;
        if (Engine::get().stale(true)) Engine::get().poll(&missing);
        if (sum && !sum(7)) ++wrong_sums;
        if (library) dlclose(library);
    }
}

void take_snapshots() {
    while (!stop) {
        const pht::Snapshot *const taken = Engine::get().take_snapshot(true);
        if (taken) Engine::free_snapshot(taken);
    }
}

}  // namespace

int main(int count, char **arguments) {
    if (count != 5) return 99;
    pht::Request request;
    for (int i = 0; i < pht::kBackings; ++i)
        if (!strcmp(arguments[3], pht::kBackingNames[i])) request.backing = static_cast<Backing>(i);
    request.private_limit = 1ull << 40;
    const Sum sum = find(dlopen(arguments[1], RTLD_NOW));
    if (!sum) return 98;
    const long right = sum(7);
    if (Engine::get().remap(request, Table::Scope::fresh) < 0) return 97;
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) threads.emplace_back(run_text, sum, right);
    threads.emplace_back(open_and_close, arguments[2]);
    threads.emplace_back(take_snapshots);
    const auto turn = [&] {
        for (int i = 0, n = atoi(arguments[4]); i < n; ++i) {
            Engine::get().restore();
            judge(Engine::get().remap(request, Table::Scope::candidates));
        }
    };
    threads.emplace_back(turn);
    turn();
    const pid_t child = fork();
    if (child == 0) _exit(sum(7) == right ? 0 : 1);
    int status = 1;
    if (waitpid(child, &status, 0) != child || status != 0) ++wrong_sums;
    threads.back().join();
    stop = true;
    for (std::thread &thread : threads)
        if (thread.joinable()) thread.join();
    printf("calls=%ld wrong=%ld not opened=%ld refused=%ld busy=%ld\n", calls.load(),
           wrong_sums.load(), not_opened.load(), refused.load(), busy.load());
    return wrong_sums || not_opened || refused || !calls ? 1 : 0;
}
