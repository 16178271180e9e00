#include "engine/store_api.h"

namespace pht {

namespace {

// Calls use(writer) for a store, which is made where it is missing if told so; or says why not.
template <class Use> Trouble with_store(const StoreSpec &spec, bool make, Use use) {
    StoreWriter writer(spec);
    const Trouble problem = writer.open(make);
    return problem.ok() ? use(writer) : problem;
}

// The same, under the writer's lock.
template <class Use> Trouble with_lock(const StoreSpec &spec, Use use) {
    return with_store(spec, true, [&](StoreWriter &writer) {
        bool waited;
        const Trouble locked = writer.lock(kPatientTries, &waited);
        if (!locked.ok()) return locked;
        const Held held(writer);
        return use(writer);
    });
}

Trouble open(const StoreSpec &spec, bool make) {
    return with_store(spec, make, [](StoreWriter &) { return Trouble{}; });
}

Trouble each(const StoreSpec &spec, void (*visit)(void *, const EntryView &), void *context) {
    return with_store(spec, false,
                      [&](StoreWriter &writer) { return each_entry(writer, visit, context); });
}

Trouble verify(const StoreSpec &spec, const char *name, void (*visit)(void *, const EntryView &),
               void *context, bool *removed) {
    return with_store(spec, false, [&](StoreWriter &writer) {
        return verify_entry(writer, name, visit, context, removed);
    });
}

Trouble prune(const StoreSpec &spec, void (*visit)(void *, const RemovedView &), void *context) {
    return with_store(spec, false,
                      [&](StoreWriter &writer) { return prune_store(writer, visit, context); });
}

// Also where a part of it is missing, which is made for that.
Trouble clear(const StoreSpec &spec, u64 *freed) {
    return with_store(spec, true, [&](StoreWriter &writer) { return clear_store(writer, freed); });
}

void warm(const StoreSpec &spec, const Wanted &wanted, Str keep, Made *made) {
    made->problem = with_store(spec, true, [&](StoreWriter &writer) {
        Keep kept;
        for (size_t at = 0; at < keep.size; at += length(keep.data + at) + 1)
            if (!kept.add(str(keep.data + at))) return failed_call("mmap", Error{ENOMEM});
        warm_entry(writer, wanted, kept, made);
        return made->problem;
    });
}

Trouble judge_store(const StoreSpec &spec, Verdict *verdict) {
    return with_lock(spec, [&](StoreWriter &writer) { return judge(writer, verdict); });
}

Verdict remembered(const StoreSpec &spec) {
    Verdict verdict = Verdict::unknown;
    (void)with_store(spec, false, [&](StoreWriter &writer) {
        verdict = remembered_verdict(writer);
        return Trouble{};
    });
    return verdict;
}

Trouble remember_verdict(const StoreSpec &spec, Verdict verdict) {
    return with_lock(spec, [&](StoreWriter &writer) { return remember(writer, verdict); });
}

Trouble used(const StoreSpec &spec, u64 *bytes) {
    return with_store(spec, false, [&](StoreWriter &writer) {
        *bytes = used_bytes(writer);
        return Trouble{};
    });
}

Trouble heal(const StoreSpec &spec, const char *name, Healed *healed) {
    return with_store(spec, false,
                      [&](StoreWriter &writer) { return heal_entry(writer, name, healed); });
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
                            judge_store, remembered, remember_verdict, try_file, used,  heal,
                            free_of};

}  // namespace pht
