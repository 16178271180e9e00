#include "builder/entry.h"

#include "store/trust.h"
#include "store/written.h"

namespace pht {

namespace {

constexpr int kMostNumbers = 16;  // copies of different content under one name

// Or why it could not be opened.
ErrorOr<void> sync_directory(const Descriptor &directory) {
    if (!directory.ok()) return Error(directory);
    return sys::sync(directory);
}

// One entry while it is made.
struct Making {
    const StoreWriter &writer;
    const Wanted &wanted;
    bool durable;
    const Keep &keep;
    Deadline &deadline;
    Boot &boot;
    Added *added;
    int source = -1;
    sys::FileIdentity file = {};
    Layout layout = {};
    Buffer<128> name = {};
    StoredFile own = {};                       // the record that the file has
    MappedArray<u8> header = {};               // the first bytes of the copy
    MappedArray<u32> order = {};               // the chunks that are wanted
    MappedArray<u8> present = {}, fresh = {};  // what is there; of it, what no record told of
    bool proven = false;

    Str base() const { return basename(str(wanted.path)); }
    Buffer<160> numbered(int number) const {
        Buffer<160> out;
        out.add(name.data).add("-").add_decimal(static_cast<u64>(number));
        return out;
    }
    void found(const char *object) const {
        added->path.size = 0;
        added->path.add("objects/").add(object).add("/").add(base());
    }
    // Begins with a copy of which nothing is known.
    bool forget() {
        present.clear();
        fresh.clear();
        return present.resize(bitmap_size(layout.size)) && fresh.resize(bitmap_size(layout.size));
    }
    // Bytes of what is wanted; of that, of what is not there.
    u64 bytes(bool lacking) const {
        u64 sum = 0;
        for (const u32 chunk : order)
            if (!lacking || !has_bit(present.data(), chunk)) sum += layout.chunk_size(chunk);
        return sum;
    }

    Trouble begin();
    bool is_own_good();
    Trouble make();
    Trouble add_chunks(CopyFile &copy, int directory, bool *differs);
    Trouble write_chunk(CopyFile &copy, int directory, u32 chunk);
    Trouble take(const char *object, bool *taken, bool is_own);
    Trouble settle(const char *object, int target, const sys::FileIdentity &copied);
    Trouble find_same(bool *taken);
    Trouble write_object();
    Trouble write_into(int directory);
    Trouble finish();
    void drop_superseded();
};

Trouble no_memory() {
    return failed_call("mmap", Error{ENOMEM});
}

// What is wanted, and what there is.
Trouble Making::begin() {
    if (!own.data() || !header.resize(layout.header_size) || !forget()) return no_memory();
    const auto filled = fill(layout, source, 0, header.size(), header.data());
    if (!filled.ok()) return failed_call("read", filled);
    own.read(writer.index(), added->key.data);
    const u8 *before = is_own_good() ? own.record().wanted : nullptr;
    return order_chunks(layout, wanted, before, &order) ? Trouble{} : no_memory();
}

// Whether its record is one of this file as it is, for this layout.
bool Making::is_own_good() {
    if (!own.is_record()) return false;
    const RecordView &record = own.record();
    const Record &head = *record.head;
    return is_record_of(head, file, wanted.bias) && head.object_size == layout.size &&
           head.header_size == layout.header_size &&
           compare(record.header, header.data(), header.size()) == 0 &&
           head.range_count == layout.ranges.size() &&
           compare(record.ranges, layout.ranges.data(), layout.ranges.size() * sizeof(Range)) == 0;
}

// Into the open copy, which is made writable for it.
Trouble Making::write_chunk(CopyFile &copy, int directory, u32 chunk) {
    if (!copy.is_writable()) {
        const char *stays = added->path.data;
        const Trouble problem = make_room(writer, {bytes(true), bytes(false)}, keep, stays, boot);
        if (!problem.ok()) return problem;
        auto result = sys::change_mode(copy.target(), writer.spec().copy_mode() | kOwnerWrites);
        if (!result.ok()) return failed_call("fchmod", base(), result);
        Buffer<256> own_name;
        own_name.add(base());
        result = copy.open_at(directory, own_name.data);
        if (!result.ok()) return failed_call("open", base(), result);
    }
    const Trouble problem = copy.write(chunk);
    if (problem.ok()) added->written += layout.chunk_size(chunk);
    return problem;
}

// Adds what is wanted to a copy while there is time. What is there already, and no record of this
// file tells of, is compared: another file's builder wrote it, or one that was killed. *differs:
// then it is none of this file's.
Trouble Making::add_chunks(CopyFile &copy, int directory, bool *differs) {
    *differs = false;
    for (const u32 chunk : order) {
        if (has_bit(present.data(), chunk)) continue;
        if (!(layout.uses[chunk] & kUseHead) && deadline.is_over()) return {};
        const auto blank = copy.is_blank(chunk);
        if (!blank.ok()) return failed_call("lseek", base(), blank);
        bool same = true;
        const Trouble problem =
            blank.value() ? write_chunk(copy, directory, chunk) : copy.compare(chunk, &same);
        if (!problem.ok()) return problem;
        *differs = !same;
        if (!same) return {};
        set_bit(present.data(), chunk);
        set_bit(fresh.data(), chunk);
        deadline.moved = deadline.moved || (layout.uses[chunk] & kUseText);
    }
    return {};
}

// Takes a copy that is there: that of its own record, or one that may be the same. One that nobody
// trusts goes, and so does one that differs and is no other file's.
Trouble Making::take(const char *object, bool *taken, bool is_own) {
    Outcome outcome;
    const Descriptor directory(open_directory(writer.objects(), object, &outcome));
    if (!directory.ok()) {
        // Somebody else's stays where it cannot be removed; the next number is free.
        if (outcome.status == Status::untrusted) (void)remove_tree(writer.objects(), object);
        return {};
    }
    sys::FileIdentity copied;
    Buffer<256> own_name;
    own_name.add(base());
    const Descriptor target(open_file(directory, own_name.data, &copied, &outcome, true));
    if (!target.ok() || (copied.mode & kLost)) {
        // No such file: a copy under another basename.
        if (target.ok() || outcome.status != Status::no_entry)
            (void)remove_tree(writer.objects(), object);
        return {};
    }
    if (!forget()) return no_memory();
    const RecordView &record = own.record();
    if (is_own) {
        // As the core would believe it.
        const bool seen = writer.spec().shared_memory || record.durable() || record.proven ||
                          check_written(writer.index(), added->key.data, target).ok();
        if (copied.size != layout.size || !seen) return {};
        pht::copy(present.data(), record.present, present.size());
        // Looked at again: by what the core knows a copy, before it maps it.
        for (const u32 chunk : order)
            if (layout.uses[chunk] & kUseHead) clear_bit(present.data(), chunk);
    }
    found(object);
    Trouble problem;
    bool differs = copied.size != layout.size;
    if (!differs) {
        CopyFile copy(layout, source);
        copy.use(target);
        problem = add_chunks(copy, directory, &differs);
        if (copy.is_writable()) (void)sys::change_mode(target, writer.spec().copy_mode());
    }
    if (problem.ok() && !differs) {
        *taken = true;
        if (durable) return settle(object, target, copied);
        if (is_own || writer.spec().shared_memory || is_young(copied)) return {};
        // An old copy that is tied to a file anew counts only where it is on disk; by now the
        // kernel has written it back, or failed to.
        const auto result = sys::sync_data(target);
        proven = result.ok() && !added->written;
        if (result.ok()) return {};
        (void)remove_tree(writer.objects(), object);
        return failed_call("fdatasync", result);
    }
    Index index;
    if (differs && !is_own && index.read(writer, boot).ok() &&
        !index.has_copy(added->path.data, added->key.data))
        (void)remove_tree(writer.objects(), object);
    added->path.size = 0;
    return problem;
}

Trouble Making::settle(const char *object, int target, const sys::FileIdentity &copied) {
    auto result = sys::sync(target);
    if (!result.ok()) mark_lost(target, copied);
    const Descriptor names(open_plain_directory(writer.objects(), object));
    if (result.ok()) result = sync_directory(names);
    if (result.ok()) result = sys::sync(writer.objects());
    return result.ok() ? Trouble{} : failed_call("fsync", result);
}

// Looks for a copy of the same content under the same basename.
Trouble Making::find_same(bool *taken) {
    Trouble problem;
    for (int number = 0; number < kMostNumbers && !*taken && problem.ok(); ++number)
        problem = take(numbered(number).data, taken, false);
    return problem;
}

Trouble Making::write_into(int directory) {
    Buffer<256> own_name;
    own_name.add(base());
    CopyFile copy(layout, source);
    auto result = copy.create_at(directory, own_name.data);
    if (!result.ok()) return failed_call("open", base(), result);
    result = sys::ftruncate(copy.target(), layout.size);
    if (!result.ok()) return failed_call("ftruncate", base(), result);
    bool differs;
    const Trouble problem = add_chunks(copy, directory, &differs);
    if (!problem.ok()) return problem;
    if (differs) return trouble(Trouble::Kind::io, "this file system has no sparse files");
    result = sys::change_mode(copy.target(), writer.spec().copy_mode());
    if (!result.ok()) return failed_call("fchmod", base(), result);
    if (durable) result = sys::sync(copy.target());
    if (durable && result.ok()) result = sys::sync(directory);
    return result.ok() ? Trouble{} : failed_call("fsync", base(), result);
}

Trouble Making::write_object() {
    if (!forget()) return no_memory();
    Trouble problem = make_room(writer, {bytes(true), bytes(false)}, keep, "", boot);
    if (!problem.ok()) return problem;
    Buffer<160> temporary;
    temporary.add_decimal(sys::process_id()).add("-").add(name.data);
    const u32 mode = writer.spec().directory_mode();
    auto result = make_plain_directory(writer.tmp(), temporary.data, mode);
    if (!result.ok()) return failed_call("mkdir", str("v1/tmp"), result);
    {
        const auto opened = open_plain_directory(writer.tmp(), temporary.data);
        const Written directory(opened);
        problem = opened.ok() ? write_into(directory) : failed_call("open", str("v1/tmp"), opened);
    }
    for (int number = 0; problem.ok() && number < kMostNumbers; ++number) {
        sys::FileIdentity there;
        const Buffer<160> object = numbered(number);
        if (sys::identify_at(writer.objects(), object.data, AT_SYMLINK_NOFOLLOW, &there).ok())
            continue;
        result = sys::rename_at(writer.tmp(), temporary.data, writer.objects(), object.data);
        if (result.ok() && durable) result = sys::sync(writer.objects());
        if (!result.ok()) {
            problem = failed_call("rename", str("v1/objects"), result);
            break;
        }
        found(object.data);
        return {};
    }
    (void)remove_tree(writer.tmp(), temporary.data);
    if (!problem.ok()) return problem;
    return trouble(Trouble::Kind::full, "sixteen different files have the same build-id and size");
}

// The copy and its record.
Trouble Making::make() {
    Trouble problem = begin();
    if (!problem.ok()) return problem;
    bool taken = false, made = false;
    if (is_own_good() && check_boot(*own.record().head, boot).ok()) {
        problem = take(ObjectName(own.record().path).object.data, &taken, true);
        if (!problem.ok()) {
            // It serves as it is; what cannot be added is not tried again at each start.
            if (problem.kind == Trouble::Kind::full || problem.kind == Trouble::Kind::io)
                (void)write_resting(writer, added->key.data, own);
            added->serves = true;
            return problem;
        }
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
    else
        problem = finish();
    if (!problem.ok() && made) drop_object(writer, added->path.data);
    return problem;
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
    MappedArray<u8> all;
    if (!all.resize(present.size())) return no_memory();
    added->whole = true;
    for (const u32 chunk : order) {
        set_bit(all.data(), chunk);
        added->whole = added->whole && has_bit(present.data(), chunk);
    }
    if (!find_texts(layout, fresh.data(), &added->texts)) return no_memory();
    RecordParts parts;
    parts.file = file;
    parts.bias = wanted.bias;
    parts.durable = durable;
    parts.proven = proven;
    parts.layout = &layout;
    parts.path = {added->path.data, added->path.size};
    parts.origin = str(wanted.path);
    parts.header = header.data();
    parts.present = present.data();
    parts.wanted = all.data();
    Trouble problem = write_record(writer, added->key, parts, boot);
    if (problem.ok() && writer.spec().for_everyone && durable && layout.build_id.size) {
        parts.file = {};
        parts.file.size = file.size;
        parts.file.mtime = file.mtime;
        parts.file.dev_major = file.dev_major;
        parts.file.dev_minor = file.dev_minor;
        problem = write_record(writer, image_key(file, layout.build_id, wanted.bias), parts, boot);
    }
    if (problem.ok()) drop_superseded();
    return problem;
}

}  // namespace

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
