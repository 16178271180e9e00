#include "builder/room.h"

namespace pht {

namespace {

constexpr u64 kFreeFloor = 1ull << 30;  // bytes of disk that stay free

// Entries of one file for different addresses.
constexpr size_t kMostBiases = 4, kMostInMemory = 2;

// Seconds after which entries may go for others: use is noted once a day, so no less. Of a file
// that seems gone or changed, which it may be in one container and not in another, an hour.
constexpr u64 kUsedStays = kDay, kLostStays = 60ul * 60;

// Whether no process can map an entry any more, as far as this one sees.
bool is_lost(const Index &index, const IndexItem &item) {
    if (!item.counts) return true;
    const char *origin = index.text(item.origin);
    if (!*origin || item.image) return false;
    sys::FileIdentity file;
    const auto result = sys::identify_at(AT_FDCWD, origin, 0, &file);
    if (!result.ok()) return result.error() == ENOENT || result.error() == ENOTDIR;
    const KeyText key = record_key(file, item.bias);
    return !equal({key.data, key.size}, str(index.name(item)));
}

struct Victim {
    const char *path;
    bool lost;
    u64 used;  // when, last
    u64 bytes;

    bool goes_before(const Victim &other) const {
        return lost != other.lost ? lost : used < other.used;
    }
};

bool is_first_of_copy(const Index &index, size_t which) {
    const char *path = index.path(index.items()[which]);
    for (size_t i = 0; i < which; ++i) {
        const IndexItem &item = index.items()[i];
        if (item.kind == IndexItem::Kind::record && equal(str(index.path(item)), str(path)))
            return false;
    }
    return true;
}

// Takes together the records of one copy; false where it has to stay.
bool may_go(const StoreWriter &writer, const Index &index, const Keep &keep, u64 now,
            Victim *victim) {
    victim->lost = true;
    for (const IndexItem &item : index.items()) {
        if (item.kind != IndexItem::Kind::record ||
            !equal(str(index.path(item)), str(victim->path)))
            continue;
        if (keep.has(index.name(item))) return false;
        victim->lost = victim->lost && is_lost(index, item);
    }
    victim->used = last_use(writer, index, victim->path);
    victim->bytes = identify_copy(writer, victim->path).disk_bytes;
    const u64 stays = victim->lost ? kLostStays : kUsedStays;
    // A clock that was ahead makes nothing last.
    const bool lately = now >= victim->used && now - victim->used < stays;
    return writer.spec().evicts_used || !lately;
}

// The copies that may go for others: first what no process can map any more, then what was used
// least recently.
ErrorOr<void> find_victims(const StoreWriter &writer, const Index &index, const Keep &keep,
                           const char *stays, MappedArray<Victim> *out) {
    const u64 now = sys::wall_seconds();
    for (size_t i = 0; i < index.items().size(); ++i) {
        const IndexItem &item = index.items()[i];
        if (item.kind != IndexItem::Kind::record || !is_first_of_copy(index, i)) continue;
        Victim victim = {index.path(item), false, 0, 0};
        if (equal(str(victim.path), str(stays))) continue;
        if (!may_go(writer, index, keep, now, &victim)) continue;
        if (!out->push(victim)) return Error{ENOMEM};
        for (size_t at = out->size() - 1; at > 0 && (*out)[at].goes_before((*out)[at - 1]); --at) {
            const Victim other = (*out)[at - 1];
            (*out)[at - 1] = (*out)[at];
            (*out)[at] = other;
        }
    }
    return {};
}

// How much has to go; 0 or less where nothing has to.
ErrorOr<void> find_lack(const StoreWriter &writer, u64 size, long long *lack) {
    sys::FileSystem system;
    const auto result = sys::file_system_of(writer.version(), &system);
    if (!result.ok()) return result;
    const auto wanted = static_cast<long long>(size);
    const auto limit = static_cast<long long>(min<u64>(writer.spec().limit, ~0ull >> 1));
    const auto used = static_cast<long long>(used_bytes(writer));
    *lack = max(used - limit + wanted, wanted - free_bytes(system));
    return result;
}

Trouble full(u64 mebibytes, const char *before, const char *after) {
    Trouble out = trouble(Trouble::Kind::full, before);
    out.text.add_decimal(mebibytes).add(after);
    return out;
}

}  // namespace

bool has_too_many_biases(const StoreWriter &writer, const sys::FileIdentity &file, u64 bias) {
    const KeyText key = record_key(file, 0);  // ends with "-0"
    const KeyText own = record_key(file, bias);
    Names names;
    if (!names.read(writer.index()).ok()) return false;
    size_t entries = 0;
    for (const char *name; names.next(&name);)
        entries +=
            starts_with(str(name), {key.data, key.size - 1}) && !equal(str(name), str(own.data));
    return entries >= (writer.spec().shared_memory ? kMostInMemory : kMostBiases);
}

u64 last_use(const StoreWriter &writer, const Index &index, const char *path) {
    u64 last = identify_copy(writer, path).atime;
    for (const IndexItem &item : index.items())
        if (item.kind == IndexItem::Kind::record && equal(str(index.path(item)), str(path)))
            last = max(last, item.used);
    return last;
}

u64 used_bytes(const StoreWriter &writer) {
    Names names;
    u64 bytes = 0;
    if (!names.read(writer.objects()).ok()) return 0;
    for (const char *name; names.next(&name);) bytes += disk_bytes(writer.objects(), name);
    return bytes;
}

long long free_bytes(const sys::FileSystem &system) {
    const u64 unit = system.fragment_size ? system.fragment_size : system.block_size;
    const u64 floor = min(kFreeFloor, system.blocks * unit / 10);
    return static_cast<long long>(system.available * unit) - static_cast<long long>(floor);
}

Trouble make_room(const StoreWriter &writer, const Need &need, const Keep &keep, Boot &boot) {
    const u64 limit = writer.spec().limit, size = need.more;
    if (need.whole > limit)
        return full(need.whole >> 20, "its copy of ", " MiB is larger than the store may be");
    long long lack = 0;
    auto result = find_lack(writer, size, &lack);
    if (!result.ok()) return failed_call("statfs", result);
    if (lack <= 0) return {};
    Index index;
    result = index.read(writer, boot);
    if (!result.ok()) return failed_call("reading v1/index", result);
    if (drop_orphan_copies(writer, index, need.stays)) result = find_lack(writer, size, &lack);
    if (!result.ok()) return failed_call("statfs", result);
    if (lack <= 0) return {};
    MappedArray<Victim> victims;
    if (need.urgent) result = find_victims(writer, index, keep, need.stays, &victims);
    if (!result.ok()) return failed_call("mmap", result);
    size_t count = 0;
    while (count < victims.size() && lack > 0)
        lack -= static_cast<long long>(victims[count++].bytes);
    if (lack > 0) {
        if (used_bytes(writer) + size <= limit)
            return trouble(Trouble::Kind::full, "the file system has too little free space");
        return full(limit >> 20, "the store's limit of ", " MiB is taken up by entries in use");
    }
    for (size_t i = 0; i < count; ++i) drop_copy(writer, index, victims[i].path);
    return {};
}

u64 drop_object(const StoreWriter &writer, const char *path) {
    const ObjectName name(path);
    const u64 bytes = disk_bytes(writer.objects(), name.object.data);
    return remove_tree(writer.objects(), name.object.data).ok() ? bytes : 0;
}

u64 drop_copy(const StoreWriter &writer, const Index &index, const char *path) {
    for (const IndexItem &item : index.items())
        if (item.kind == IndexItem::Kind::record && equal(str(index.path(item)), str(path)))
            (void)sys::unlink_at(writer.index(), index.name(item));
    return drop_object(writer, path);
}

u64 drop_record(const StoreWriter &writer, const char *name, Boot &boot) {
    StoredFile stored;
    stored.read(writer.index(), name);
    Buffer<1024> path;
    if (stored.is_record()) path.add(stored.record().path);
    (void)remove_tree(writer.index(), name);
    if (!path.size) return 0;
    Index index;
    if (!index.read(writer, boot).ok() || index.has_copy(path.data, name)) return 0;
    return drop_object(writer, path.data);
}

u64 drop_orphan_copies(const StoreWriter &writer, const Index &index, const char *stays) {
    Names names;
    u64 freed = 0;
    if (!names.read(writer.objects()).ok()) return 0;
    for (const char *name; names.next(&name);) {
        bool used = equal(str(ObjectName(stays).object.data), str(name));
        for (const IndexItem &item : index.items()) {
            if (item.kind != IndexItem::Kind::record) continue;
            const ObjectName named(index.path(item));
            if (!equal({named.object.data, named.object.size}, str(name))) continue;
            const Descriptor directory(open_plain_directory(writer.objects(), name));
            sys::FileIdentity file;
            used = used ||
                   (directory.ok() &&
                    sys::identify_at(directory, named.base.data, AT_SYMLINK_NOFOLLOW, &file).ok());
        }
        if (used) continue;
        const u64 bytes = disk_bytes(writer.objects(), name);
        if (remove_tree(writer.objects(), name).ok()) freed += bytes;
    }
    return freed;
}

}  // namespace pht
