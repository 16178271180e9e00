// What is told of a process: a copy of what the engine knows, for readers without its lock.
#include <new>

#include "engine/engine.h"
#include "engine/lock.h"

namespace pht {

namespace {

Snapshot *make_snapshot() {
    void *memory = allocate(sizeof(Snapshot));
    return memory ? new (memory) Snapshot : nullptr;
}

void destroy(Snapshot *snapshot) {
    snapshot->~Snapshot();
    release(snapshot, sizeof(Snapshot));
}

// Told to who could not have the lock.
Snapshot busy_snapshot;

}  // namespace

const Snapshot *Engine::take_snapshot(bool asked) {
    const Locked locked;
    if (!locked.ok()) {
        busy_snapshot.started = true;
        busy_snapshot.machine = done();
        busy_snapshot.last = {Status::busy, Call::none, 0};
        return &busy_snapshot;
    }
    Snapshot *snapshot = make_snapshot();
    if (snapshot) fill(snapshot, asked || !linker_lock_may_be_lost());
    return snapshot;
}

void Engine::free_snapshot(const Snapshot *snapshot) {
    if (snapshot == &busy_snapshot) return;
    const Locked locked;
    if (locked.ok()) destroy(const_cast<Snapshot *>(snapshot));  // else a little memory less
}

void Engine::fill(Snapshot *out, bool looks) {
    const Outcome observed = looks ? look_at_all() : done();
    out->started = started_;
    out->enabled = enabled_;
    out->machine = machine_;
    out->last = last_.ok() || !started_ ? observed : last_;
    const Status why = still();
    if (why != Status::ok && out->last.ok())
        out->last = {why, why == Status::unreadable ? Call::open : Call::none, 0};
    out->elapsed_ns = elapsed_ns_;
    if (!out->reasons.append(reasons_.data(), reasons_.size()))
        out->last = {Status::no_memory, Call::none, 0};
    for (const Region *region : table_.regions())
        if (!add_view(*region, out)) out->last = {Status::no_memory, Call::none, 0};
}

bool Engine::add_view(const Region &region, Snapshot *out) {
    RegionView view = {};
    view.low = region.object.low;
    view.high = region.object.high;
    view.text_bytes = region.text_bytes;
    view.coverable_bytes = region.coverable_bytes;
    view.mapped_bytes = region.mapped_text();
    view.elapsed_ns = region.elapsed_ns;
    view.backing = region.any_huge() ? region.backing : Backing::none;
    view.outcome = region.outcome;
    for (int i = 0; i < kBackings; ++i) view.tried[i] = region.tried[i];
    view.build_id = region.object.build_id;
    const Str path = region.path_text();
    view.path = out->text.size();
    view.path_size = path.size;
    if (!out->text.append(path.data, path.size)) return false;
    view.first_page_run = out->page_runs.size();
    for (size_t i = 0; i < region.pages.size(); ++i) {
        const HugePage &page = region.pages[i];
        if (page.state == HugePage::State::unusable) continue;
        if (!out->page_runs.push({region.address_of(i), region.address_of(i + 1),
                                  page.state == HugePage::State::huge, page.outcome}))
            return false;
        ++view.page_runs;
    }
    view.first_text = out->texts.size();
    for (const Extent &extent : region.extents) {
        if (extent.kind != Extent::Kind::text || extent.filler) continue;
        if (!out->texts.push({extent.start, extent.end})) return false;
        ++view.texts;
    }
    return out->regions.push(view);
}

const Snapshot *Engine::plan_elsewhere(const ProcessObject &object) {
    const Locked locked;
    if (!locked.ok()) return nullptr;
    Snapshot *snapshot = make_snapshot();
    if (!snapshot) return nullptr;
    Region region;
    if (pht::plan_elsewhere(object, &region) && add_view(region, snapshot)) return snapshot;
    destroy(snapshot);
    return nullptr;
}

}  // namespace pht
