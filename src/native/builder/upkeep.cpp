#include "builder/upkeep.h"

#include "builder/copy.h"
#include "builder/served.h"
#include "store/trust.h"

namespace pht {

namespace {

// Whether the original is still the file that a name of the index stands for.
State state_of_original(const char *name, const IndexItem &item, const char *origin,
                        Buffer<400> *reason) {
    if (!*origin) {
        reason->add("the path of its original was not recorded");
        return State::ready;
    }
    sys::FileIdentity file;
    const auto result = sys::identify_at(AT_FDCWD, origin, 0, &file);
    if (result.error() == EACCES || result.error() == EPERM) {
        reason->add("its original cannot be looked at");
        return State::ready;
    }
    if (!result.ok()) {
        reason->add("its original is gone: ");
        add_error(result, reason);
        return State::stale;
    }
    bool same;
    if (item.image) {
        // What the name has of the content is the copy's; a change of it changes the time as well.
        const KeyText front = image_key_front(file);
        same = starts_with(str(name), {front.data, front.size});
    } else {
        const KeyText key = record_key(file, item.bias);
        same = equal({key.data, key.size}, str(name));
    }
    if (same) return State::ready;
    reason->add("its original was changed");
    return State::stale;
}

void describe_copy(const StoreWriter &writer, const char *path, EntryView *out) {
    sys::FileIdentity file;
    Trouble problem;
    const auto fd = open_copy_at(writer, path, &file, &problem);
    if (!fd.ok()) return;
    sys::close(fd.value());
    out->size = file.size;
    out->disk = file.disk_bytes;
    out->built = file.mtime;
    out->used = max(out->used, file.atime);
}

void judge_record(const StoreWriter &writer, const IndexItem &item, EntryView *out) {
    const auto say = [&](State state, const char *reason) {
        out->state = state;
        out->reason.add(reason);
    };
    if (item.kind == IndexItem::Kind::damaged)
        return say(State::damaged, "its record is not what was written");
    describe_copy(writer, out->path, out);
    if (!item.named) return say(State::damaged, "its record is of another file");
    if (!item.counts)
        return say(State::expired,
                   "the machine was started since, and it was never known to be on disk");
    StoredFile stored;
    stored.read(writer.index(), out->name);
    if (!stored.is_record()) return say(State::damaged, "its record is not what was written");
    const RecordView &record = stored.record();
    for (u32 i = 0; i < record.head->range_count; ++i) {
        out->pages += record.ranges[i].length / kHugeSize;
        for (u64 at = 0; at < record.ranges[i].length; at += kHugeSize)
            out->present += record.has(record.ranges[i].offset + at);
    }
    const Trouble broken = why_not_mapped(writer, record);
    if (!broken.ok()) return say(State::damaged, broken.text.data);
    out->state = state_of_original(out->name, item, out->origin, &out->reason);
}

void judge_note(const IndexItem &item, EntryView *out) {
    Buffer<400> ignored;
    out->state = item.counts ? State::ready : State::stale;
    if (item.counts && *out->origin)
        out->state = state_of_original(out->name, item, out->origin, &ignored);
}

void view(const StoreWriter &writer, const Index &index, const IndexItem &item, EntryView *out) {
    out->item = &item;
    out->name = index.name(item);
    out->path = index.path(item);
    out->origin = index.text(item.origin);
    out->kernel = index.text(item.kernel);
    out->built = out->used = item.used;
    if (item.kind == IndexItem::Kind::note) {
        out->reason.add(index.text(item.reason));
        judge_note(item, out);
    } else {
        judge_record(writer, item, out);
    }
}

bool same_ranges(const Layout &layout, const RecordView &record) {
    const size_t count = layout.ranges.size();
    return record.head->range_count == count &&
           compare(record.ranges, layout.ranges.data(), count * sizeof(Range)) == 0;
}

// Compares the content of an entry that is ready otherwise.
void compare_content(const StoreWriter &writer, EntryView *entry) {
    const auto damaged = [&](const char *reason) {
        entry->state = State::damaged;
        entry->reason.add(reason);
    };
    const auto unknown = [&](const Trouble &problem) {
        entry->reason.add("it could not be compared: ").add(problem.text.data);
    };
    StoredFile stored;
    stored.read(writer.index(), entry->name);
    if (!stored.is_record()) return damaged("its record is not what was written");
    Wanted wanted;
    wanted.path = entry->origin;
    int fd;
    sys::FileIdentity file, copied;
    Trouble problem = open_original(wanted, &fd, &file);
    const Descriptor source(fd);
    if (!problem.ok()) return unknown(problem);
    const Descriptor target(open_copy_at(writer, entry->path, &copied, &problem));
    if (!target.ok()) return unknown(problem);
    Layout layout;
    const LaidOut laid = lay_out(source, file.size, entry->item->bias, &layout);
    if (laid.refused) {
        damaged("its original ");
        entry->reason.add(laid.refused);
        return;
    }
    if (!laid.ok()) return unknown(failed_call("read", Error{laid.error}));
    if (!same_ranges(layout, stored.record())) return damaged("its record tells of other ranges");
    u64 differs;
    problem = compare_copy(layout, source, target, stored.record().present, &differs);
    if (!problem.ok()) return unknown(problem);
    if (differs == ~0ull) return;
    // Not damaged where the original was replaced while it was read.
    entry->state = state_of_original(entry->name, *entry->item, entry->origin, &entry->reason);
    if (entry->state != State::ready) return;
    damaged("it differs from its original in the 2 MiB at offset 0x");
    entry->reason.add_hex(differs);
}

// Looks at one entry, content too. False where it is gone, or a note.
bool check(const StoreWriter &writer, const char *name, Index *index, EntryView *out) {
    Boot boot;
    if (!index->read_one(writer, name, boot).ok()) return false;
    const IndexItem &item = index->items()[0];
    if (item.kind == IndexItem::Kind::note) return false;
    *out = {};
    view(writer, *index, item, out);
    if (out->state == State::ready && !out->reason.size) compare_content(writer, out);
    return true;
}

}  // namespace

Trouble each_entry(const StoreWriter &writer, void (*visit)(void *, const EntryView &),
                   void *context) {
    Boot boot;
    Index index;
    const auto read = index.read(writer, boot);
    if (!read.ok()) return failed_call("reading v1/index", read);
    for (const IndexItem &item : index.items()) {
        EntryView entry;
        view(writer, index, item, &entry);
        visit(context, entry);
    }
    return {};
}

Trouble verify_entry(StoreWriter &writer, const char *name,
                     void (*visit)(void *, const EntryView &), void *context, bool *removed) {
    Index index;
    EntryView entry;
    *removed = false;
    if (!check(writer, name, &index, &entry)) return {};
    if (entry.state != State::damaged) {
        visit(context, entry);
        return {};
    }
    bool waited;
    const Trouble locked = writer.lock(kPatientTries, &waited);
    if (!locked.ok()) {
        entry.reason.add("; it cannot be removed: ").add(locked.text.data);
        visit(context, entry);
        return {};
    }
    const Held held(writer);
    // Looked at again: a builder may have been at it just then.
    if (!check(writer, name, &index, &entry)) return {};
    if (entry.state == State::damaged) {
        Boot boot;
        drop_record(writer, name, boot);
        sys::FileIdentity there;
        *removed = !sys::identify_at(writer.index(), name, AT_SYMLINK_NOFOLLOW, &there).ok();
        if (!*removed) entry.reason.add("; it cannot be removed");
    }
    visit(context, entry);
    return {};
}

namespace {

struct Pruning {
    StoreWriter &writer;
    void (*visit)(void *, const RemovedView &);
    void *context;
    Boot boot;

    void tell(const char *what, const char *why, u64 freed) const {
        visit(context, {what, why, freed});
    }
    Trouble prune();
    void drop_useless(const Index &index);
    Trouble evict();
};

void Pruning::drop_useless(const Index &index) {
    for (const IndexItem &item : index.items()) {
        EntryView entry;
        view(writer, index, item, &entry);
        if (entry.state == State::ready) continue;
        const u64 freed = drop_record(writer, entry.name, boot);
        const bool note = item.kind == IndexItem::Kind::note;
        const char *why = note ? "a note that is out of date" : entry.reason.data;
        tell(*entry.origin ? entry.origin : entry.name, why, note ? 0 : freed);
    }
}

// The least recently used first, whatever was used lately: somebody asked for it.
Trouble Pruning::evict() {
    for (;;) {
        if (used_bytes(writer) <= writer.spec().limit) return {};
        Index index;
        const auto read = index.read(writer, boot);
        if (!read.ok()) return failed_call("reading v1/index", read);
        const char *oldest = nullptr;
        u64 when = ~0ull;
        for (const IndexItem &item : index.items()) {
            if (item.kind != IndexItem::Kind::record) continue;
            const u64 last = last_use(writer, index, index.path(item));
            if (last >= when) continue;
            when = last;
            oldest = index.path(item);
        }
        if (!oldest) return {};
        u64 freed = drop_copy(writer, index, oldest);
        if (!freed) return {};
        for (const IndexItem &item : index.items()) {
            if (!equal(str(index.path(item)), str(oldest))) continue;
            const char *origin = index.text(item.origin);
            tell(*origin ? origin : index.name(item), "the store is larger than its limit", freed);
            freed = 0;
        }
    }
}

Trouble Pruning::prune() {
    Names names;
    auto read = names.read(writer.tmp());
    if (!read.ok()) return failed_call("reading v1/tmp", read);
    for (const char *name; names.next(&name);) {
        const u64 freed = disk_bytes(writer.tmp(), name);
        const auto removed = remove_tree(writer.tmp(), name);
        if (!removed.ok()) return failed_call("removing from v1/tmp", removed);
        Buffer<300> path;
        tell(path.add("v1/tmp/").add(name).data, "left by a builder that was killed", freed);
    }
    Index index;
    read = index.read(writer, boot);
    if (!read.ok()) return failed_call("reading v1/index", read);
    drop_useless(index);
    read = index.read(writer, boot);
    if (!read.ok()) return failed_call("reading v1/index", read);
    drop_served(writer, visit, context);
    if (const u64 freed = drop_orphan_copies(writer, index, ""))
        tell("v1/objects", "copies that no record tells of", freed);
    return evict();
}

}  // namespace

Trouble prune_store(StoreWriter &writer, void (*visit)(void *, const RemovedView &),
                    void *context) {
    bool waited;
    const Trouble locked = writer.lock(kPatientTries, &waited, false);
    if (!locked.ok()) return locked;
    const Held held(writer);
    Pruning pruning{writer, visit, context, {}};
    return pruning.prune();
}

Trouble clear_store(StoreWriter &writer, u64 *freed) {
    bool waited;
    const Trouble locked = writer.lock(kPatientTries, &waited, false);
    if (!locked.ok()) return locked;
    const Held held(writer);
    *freed = used_bytes(writer);
    return writer.remove_all();
}

}  // namespace pht
