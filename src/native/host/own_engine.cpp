// The table of this object's engine.
#include <new>

#include "host/host.h"

namespace pht {

namespace {

void free_layout(const Layout *layout) {
    auto *owned = const_cast<Layout *>(layout);
    owned->~Layout();
    unmap_memory(owned, sizeof *owned);
}

// Needs no lock, and so no memory of the engine's.
LaidOut lay_out(int fd, u64 size, u64 bias, const Layout **out) {
    void *memory = map_memory(sizeof(Layout));
    if (!memory) return {nullptr, ENOMEM};
    auto *layout = new (memory) Layout;
    const LaidOut done = pht::lay_out(fd, size, bias, layout);
    if (done.ok())
        *out = layout;
    else
        free_layout(layout);
    return done;
}

}  // namespace

const EngineApi own_engine = {
    .settings = settings_of_process,
    .start = [](const Patience &patience) { start(settings_of_process(), patience, false); },
    .look = [](const Patience &patience) { look(settings_of_process(), patience); },
    .started = [] { return Engine::get().started(); },
    .stale = [](bool loaded) { return Engine::get().stale(loaded); },
    .interpreter_at = [](u64 address) { Engine::get().interpreter_at(address); },
    .remap =
        [](const Request &request) {
            return Engine::get().remap(request, Table::Scope::candidates);
        },
    .complete = [](const Patience &patience) { return Engine::get().complete(patience, true); },
    .restore = [] { return Engine::get().restore(); },
    .take_snapshot = [](bool asked) { return Engine::get().take_snapshot(asked); },
    .free_snapshot = Engine::free_snapshot,
    .open_elsewhere = open_elsewhere,
    .read_head = read_head,
    .plan_elsewhere = Engine::plan_elsewhere,
    .find_entries = find_entries,
    .memory_room = [](MemoryRoom *out) { memory_room(out); },
    .shared_allowance = shared_allowance,
    .probe = Engine::probe,
    .lay_out = lay_out,
    .free_layout = free_layout,
    .store = &store_api,
};

}  // namespace pht
