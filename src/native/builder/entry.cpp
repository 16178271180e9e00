#include "builder/entry.h"

#include "builder/making.h"
#include "builder/original.h"
#include "store/trust.h"
#include "store/written.h"

namespace pht {

// The copy and its record.
Trouble Making::make() {
    Trouble problem = begin();
    if (!problem.ok()) return problem;
    bool taken = false, made = false;
    if (is_own_good() && check_boot(*own.record().head, boot).ok()) {
        problem = take(ObjectName(own.record().path).object.data, &taken, true);
        if (!problem.ok()) return problem;
        // Compared again it would be taken again, where there is no time to get to what differs.
        if (!taken) differing.add(ObjectName(own.record().path).object.data);
    }
    if (!taken) problem = find_same(&taken);
    if (problem.ok() && !taken) {
        problem = write_object();
        made = problem.ok();
    }
    if (!problem.ok()) return problem;
    sys::FileIdentity after;
    const auto result = sys::identify(source, &after);
    const KeyText key = record_key(after, wanted.bias);
    if (!result.ok() || !equal({key.data, key.size}, {added->key.data, added->key.size}))
        problem = trouble(Trouble::Kind::changed, "was changed while it was copied");
    // Before its place is taken: who is killed in between leaves a copy that the next one finds.
    if (problem.ok() && differing.size && !equal(str(own.record().path), str(added->path.data)))
        drop_record(writer, added->key.data, boot);
    if (problem.ok()) problem = finish();
    if (!problem.ok() && made) drop_object(writer, added->path.data);
    added->serves = problem.ok() && !stopped.ok();
    return problem.ok() ? stopped : problem;
}

// Removes the records of the file of this key from before it was changed in place: those of the
// same device and inode.
void Making::drop_superseded() {
    const KeyText &key = added->key;
    size_t identity = key.size, front = 0;
    while (identity > 0 && key.data[identity - 1] != '-') --identity;  // all but the bias
    for (int dashes = 0; front < key.size && dashes < 3; ++front) dashes += key.data[front] == '-';
    Names names;
    if (!names.read(writer.index()).ok()) return;
    for (const char *other; names.next(&other);)
        if (starts_with(str(other), {key.data, front}) &&
            !starts_with(str(other), {key.data, identity}))
            drop_record(writer, other, boot);
}

// Writes the records.
Trouble Making::finish() {
    u64 lacking = 0;
    for (const u32 chunk : order) lacking += !has_bit(present.data(), chunk);
    added->whole = lacking == 0;
    if (!find_texts(layout, fresh.data(), &added->texts)) return no_memory();
    RecordParts parts;
    parts.file = file;
    parts.bias = wanted.bias;
    parts.durable = durable || on_disk;
    parts.synced = durable;
    parts.proven = proven;
    parts.layout = &layout;
    parts.path = {added->path.data, added->path.size};
    parts.origin = str(wanted.path);
    parts.header = header.data();
    parts.present = present.data();
    parts.lacking = lacking;
    if (!stopped.ok()) parts.rests_until = rest_until(writer.spec().limit_is_own);
    if (wanted.itself == Itself::refused)
        parts.refused_by = this_kernel();
    else if (is_own_good())
        parts.refused_by = own.record().head->refused_by;
    Trouble problem = write_record(writer, added->key, parts, boot);
    if (problem.ok() && writer.spec().for_images && durable) problem = write_image_record(&parts);
    if (problem.ok()) drop_superseded();
    return problem;
}

// The one by which a container image finds the entry, for the same copy.
Trouble Making::write_image_record(RecordParts *parts) {
    MappedArray<char> path;
    if (!find_real_path(source, &path)) return {};
    parts->origin = str(path.data());
    parts->file = {};
    parts->file.size = file.size;
    parts->file.mtime = file.mtime;
    parts->file.dev_major = file.dev_major;
    parts->file.dev_minor = file.dev_minor;
    const KeyText key = image_key(file, layout.build_id, parts->origin, wanted.bias);
    return write_record(writer, key, *parts, boot);
}

Trouble add_entry(const StoreWriter &writer, const Wanted &wanted, bool durable, const Keep &keep,
                  Deadline &deadline, Boot &boot, Added *added) {
    Making making{writer, wanted, durable, keep, deadline, boot, added};
    Trouble problem = open_original(wanted, &making.source, &making.file);
    const Descriptor source(making.source);
    if (problem.ok()) problem = outlast_tick(making.file);
    if (problem.ok() && writer.spec().for_everyone && !everyone_can_read(source))
        problem = trouble(Trouble::Kind::refused,
                          "cannot be read by everyone, so nor may a copy that everyone reads");
    if (!problem.ok()) return problem;
    const LaidOut laid = lay_out(source, making.file.size, wanted.bias, &making.layout);
    if (laid.refused) return trouble(Trouble::Kind::refused, laid.refused);
    if (!laid.ok()) return failed_call("read", Error{laid.error});
    added->key = record_key(making.file, wanted.bias);
    added->size = making.layout.size;
    making.name = object_name(making.layout, making.file, wanted.bias);
    return making.make();
}

Trouble promote_entry(const StoreWriter &writer, const char *name, StoredFile &stored) {
    sys::FileIdentity file;
    Trouble problem;
    const auto fd = open_copy_at(writer, stored.record().path, &file, &problem);
    if (!fd.ok()) return problem;
    const Descriptor target(fd);
    auto result = sys::sync(target);
    if (!result.ok()) mark_lost(target, file);
    const ObjectName name_of(stored.record().path);
    const Descriptor directory(open_plain_directory(writer.objects(), name_of.object.data));
    if (result.ok()) result = sync_directory(directory);
    if (result.ok()) result = sys::sync(writer.objects());
    if (!result.ok()) return failed_call("fsync", result);
    return write_as_durable(writer, name, stored);
}

}  // namespace pht
