#include "builder/served.h"

namespace pht {

namespace {

// Seconds for which nobody looks again whether what is in use in shared memory still is.
constexpr u64 kLookedAt = 600;

// Whether all there is of a file can be mapped from a store.
bool is_whole(const StoreWriter &disk, const char *name, StoredFile &stored, Boot &boot) {
    stored.read(disk.index(), name);
    if (!stored.is_record() || stored.record().is_growing()) return false;
    return check_boot(*stored.record().head, boot).ok() &&
           why_not_mapped(disk, stored.record()).ok();
}

// Whether a copy is mapped: who does shares its lock; see Store::find(). Who comes later finds the
// disk's first. `copy` has the lock then.
bool is_used(const StoreWriter &memory, const char *path, Written *copy) {
    sys::FileIdentity file;
    Trouble problem;
    copy->take(open_copy_at(memory, path, &file, &problem));
    return *copy >= 0 && !sys::try_lock_file(*copy).ok();
}

// Whether there is a store in shared memory that nobody has looked through lately.
bool is_left(const char *root) {
    Buffer<512> version;
    version.add(root).add("/v1");
    sys::FileIdentity file;
    const bool cut = version.size + 1 == sizeof version.data;
    if (cut || !sys::identify_path(version.data, &file).ok()) return false;
    const u64 now = sys::wall_seconds();
    return now < file.mtime || now - file.mtime >= kLookedAt;
}

}  // namespace

void drop_served(const StoreWriter &memory, void (*visit)(void *, const RemovedView &),
                 void *context) {
    StoreSpec spec;
    spec.root = memory.spec().better;
    StoreWriter disk(spec);
    Boot boot;
    Index index;
    StoredFile stored;
    if (!spec.root || !stored.data() || !disk.open(false).ok() || !index.read(memory, boot).ok())
        return;
    for (const IndexItem &item : index.items()) {
        const char *name = index.name(item);
        if (item.kind == IndexItem::Kind::damaged || !is_whole(disk, name, stored, boot)) continue;
        Written copy;
        const bool record = item.kind == IndexItem::Kind::record;
        if (record && is_used(memory, index.path(item), &copy)) continue;
        const u64 freed = drop_record(memory, name, boot);
        const char *origin = index.text(item.origin);
        visit(context, {*origin ? origin : name, "the store on disk has it, too", freed});
    }
}

void tidy_memory(const Request &request) {
    StoreSpec spec;
    spec.root = shared_store(request);
    spec.better = user_store(request);
    spec.shared_memory = true;
    if (request.building == Building::never || request.backing != Backing::automatic ||
        !spec.root || !spec.better || !is_left(spec.root))
        return;
    StoreWriter memory(spec);
    bool waited;
    if (!memory.open(false).ok() || !memory.lock(0, &waited).ok()) return;
    const Held held(memory);
    drop_served(
        memory, [](void *, const RemovedView &) {}, nullptr);
    Names names;
    const char *any;
    if (!names.read(memory.index()).ok() || names.next(&any))
        (void)sys::set_times(memory.version(), sys::wall_seconds());
    else
        (void)memory.remove_all();
}

}  // namespace pht
