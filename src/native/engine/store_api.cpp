#include "engine/store_api.h"

namespace pht {

namespace {

// A store while one call works on it.
class Opened {
public:
    Opened(const StoreSpec &spec, bool make) : place_(spec), problem_(place_.open(make)) {}
    bool ok() const { return problem_.ok(); }
    const Trouble &problem() const { return problem_; }
    StoreWriter &writer() { return place_; }

private:
    StoreWriter place_;
    Trouble problem_;
};

Trouble open(const StoreSpec &spec, bool make) {
    return Opened(spec, make).problem();
}

Trouble each(const StoreSpec &spec, void (*visit)(void *, const EntryView &), void *context) {
    Opened store(spec, false);
    return store.ok() ? each_entry(store.writer(), visit, context) : store.problem();
}

Trouble verify(const StoreSpec &spec, const char *name, void (*visit)(void *, const EntryView &),
               void *context, bool *removed) {
    Opened store(spec, false);
    return store.ok() ? verify_entry(store.writer(), name, visit, context, removed)
                      : store.problem();
}

Trouble prune(const StoreSpec &spec, void (*visit)(void *, const RemovedView &), void *context) {
    Opened store(spec, false);
    return store.ok() ? prune_store(store.writer(), visit, context) : store.problem();
}

// Also where a part of it is missing, which is made for that.
Trouble clear(const StoreSpec &spec, u64 *freed) {
    Opened store(spec, true);
    return store.ok() ? clear_store(store.writer(), freed) : store.problem();
}

void warm(const StoreSpec &spec, const Wanted &wanted, Str keep, Made *made) {
    Opened store(spec, true);
    made->problem = store.problem();
    if (!store.ok()) return;
    Keep kept;
    for (size_t at = 0; at < keep.size; at += length(keep.data + at) + 1) {
        if (kept.add(str(keep.data + at))) continue;
        made->problem = failed_call("mmap", Error{ENOMEM});
        return;
    }
    warm_entry(store.writer(), wanted, kept, made);
}

Trouble judge_place(const StoreSpec &spec, Verdict *verdict) {
    Opened store(spec, true);
    if (!store.ok()) return store.problem();
    bool waited;
    const Trouble locked = store.writer().lock(kPatientTries, &waited);
    if (!locked.ok()) return locked;
    const Held held(store.writer());
    return judge(store.writer(), verdict);
}

Verdict remembered(const StoreSpec &spec) {
    Opened store(spec, false);
    return store.ok() ? remembered_verdict(store.writer()) : Verdict::unknown;
}

Trouble remember_verdict(const StoreSpec &spec, Verdict verdict) {
    Opened store(spec, true);
    if (!store.ok()) return store.problem();
    bool waited;
    const Trouble locked = store.writer().lock(kPatientTries, &waited);
    if (!locked.ok()) return locked;
    const Held held(store.writer());
    return remember(store.writer(), verdict);
}

Trouble used(const StoreSpec &spec, u64 *bytes) {
    Opened store(spec, false);
    if (store.ok()) *bytes = used_bytes(store.writer());
    return store.problem();
}

Trouble free_of(int directory, long long *bytes) {
    sys::FileSystem system;
    const auto result = sys::file_system_of(directory, &system);
    if (!result.ok()) return failed_call("fstatfs", result);
    *bytes = free_bytes(system);
    return {};
}

}  // namespace

const StoreApi store_api = {open,        each,       verify,           prune,    clear, warm,
                            judge_place, remembered, remember_verdict, try_file, used,  free_of};

}  // namespace pht
