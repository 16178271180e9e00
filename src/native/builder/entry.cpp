#include "builder/entry.h"

#include "builder/copy.h"
#include "store/trust.h"
#include "store/written.h"

namespace pht {

namespace {

constexpr int kMostNumbers = 16;  // copies of different content under one name
// Entries of one file for different addresses.
constexpr size_t kMostBiases = 4, kMostInMemory = 2;

// A change of a file would show in its times only when they have ticked since: what is changed
// twice within one tick has the same identity before and after. The longest tick of a kernel is
// 10 ms; of file systems that keep whole seconds (ext4 with small inodes, FAT, NFS from such) two
// seconds, and a change time without nanoseconds tells of one.
constexpr u64 kTick = 20'000'000, kCoarseTick = 2'000'000'000;

Trouble outlast_tick(const sys::FileIdentity &file) {
    const u64 second = 1'000'000'000;
    const auto age = [&](u64 seconds, u32 nanoseconds) {
        const u64 then = seconds * second + nanoseconds, now = sys::wall_nanoseconds();
        // What lies ahead was changed just now by a clock that is ahead, or will be some day.
        return now > then ? now - then : 0;
    };
    const bool coarse = file.ctime_ns == 0;
    const u64 young = min(age(file.ctime, file.ctime_ns), age(file.mtime, file.mtime_ns));
    if (coarse && young < kCoarseTick)
        return trouble(Trouble::Kind::changed,
                       "was changed a moment ago, where times are whole seconds");
    const u64 since_change = age(file.ctime, file.ctime_ns);
    if (since_change < kTick) (void)sys::pause(kTick - since_change);
    return {};
}

// A name that files of different content seldom share; whoever shares it is compared.
Buffer<128> object_name(const Layout &layout, const sys::FileIdentity &file, u64 bias) {
    Buffer<128> out;
    constexpr int kMostBytes = 20;
    for (int i = 0; i < layout.build_id.size && i < kMostBytes; ++i)
        out.add_hex(layout.build_id.bytes[i] >> 4).add_hex(layout.build_id.bytes[i] & 15);
    if (!layout.build_id.size)
        out.add_hex(crc32(reinterpret_cast<const u8 *>(layout.ranges.data()),
                          layout.ranges.size() * sizeof(Range)));
    return out.add("-").add_hex(file.size).add("-").add_hex(bias);
}

// Whether others may read an open file, and pass all that leads to it.
bool everyone_can_read(int file) {
    Buffer<40> link;
    link.add("/proc/self/fd/").add_decimal(static_cast<u64>(file));
    MappedArray<char> path;
    if (!path.resize(kPathLimit)) return false;
    const auto size = sys::read_link(link.data, path.data(), kPathLimit - 1);
    if (!size.ok() || path[0] != '/') return false;
    sys::FileIdentity step;
    if (!sys::identify(file, &step).ok() || !(step.mode & S_IROTH)) return false;
    for (size_t at = size.value(); at > 0; --at) {
        if (path[at - 1] != '/') continue;
        path[at > 1 ? at - 1 : 1] = 0;
        if (!sys::identify_path(path.data(), &step).ok() || !(step.mode & S_IXOTH)) return false;
    }
    return true;
}

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
    Boot &boot;
    Added *added;
    int source = -1;
    sys::FileIdentity file;
    Layout layout;
    Buffer<128> name;

    Str base() const { return basename(str(wanted.path)); }

    Buffer<160> numbered(int number) const {
        Buffer<160> out;
        out.add(name.data).add("-").add_decimal(static_cast<u64>(number));
        return out;
    }
    void found(int number) const {
        added->path.size = 0;
        added->path.add("objects/").add(numbered(number).data).add("/").add(base());
    }

    bool proven = false;

    Trouble find_same(bool *found_one);
    Trouble prove(int target, const sys::FileIdentity &copied, const char *object);
    Trouble write_object();
    Trouble write_into(int directory);
    Trouble finish();
    void drop_superseded();
};

// Looks for a copy of the same content under the same basename. One that nobody trusts, or that
// differs and is no other file's, goes.
Trouble Making::find_same(bool *found_one) {
    *found_one = false;
    for (int number = 0; number < kMostNumbers; ++number) {
        const Buffer<160> object = numbered(number);
        Outcome outcome;
        const Descriptor directory(open_directory(writer.objects(), object.data, &outcome));
        if (!directory.ok()) {
            // Somebody else's stays where it cannot be removed; the next number is free.
            if (outcome.status == Status::untrusted)
                (void)remove_tree(writer.objects(), object.data);
            continue;
        }
        sys::FileIdentity copied;
        Buffer<256> own;
        own.add(base());
        const Descriptor target(open_file(directory, own.data, &copied, &outcome, true));
        if (!target.ok()) {
            // No such file: a copy under another basename.
            if (outcome.status != Status::no_entry)
                (void)remove_tree(writer.objects(), object.data);
            continue;
        }
        if (copied.mode & kLost) {
            (void)remove_tree(writer.objects(), object.data);
            continue;
        }
        u64 differs;
        const Trouble problem = compare_copy(layout, source, target, &differs);
        if (!problem.ok()) return problem;
        found(number);
        if (differs == ~0ull) {
            *found_one = true;
            if (!durable) return prove(target, copied, object.data);
            auto result = sys::sync(target);
            if (!result.ok()) mark_lost(target, copied);
            const Descriptor names(open_plain_directory(writer.objects(), object.data));
            if (result.ok()) result = sync_directory(names);
            if (result.ok()) result = sys::sync(writer.objects());
            return result.ok() ? Trouble{} : failed_call("fsync", result);
        }
        Index index;
        if (index.read(writer, boot).ok() && !index.has_copy(added->path.data, added->key.data))
            (void)remove_tree(writer.objects(), object.data);
    }
    added->path.size = 0;
    return {};
}

// An old copy that is tied to a file anew counts only where it is on disk; by now the kernel has
// written it back, or failed to.
Trouble Making::prove(int target, const sys::FileIdentity &copied, const char *object) {
    if (writer.spec().shared_memory || is_young(copied)) return {};
    const auto result = sys::sync_data(target);
    proven = result.ok();
    if (proven) return {};
    (void)remove_tree(writer.objects(), object);
    return failed_call("fdatasync", result);
}

Trouble Making::write_into(int directory) {
    Buffer<256> own;
    own.add(base());
    const auto fd = sys::create_at(directory, own.data, O_RDWR | O_EXCL, 0600);
    if (!fd.ok()) return failed_call("open", base(), fd);
    const Written target(fd);
    const Trouble problem = write_copy(layout, source, target);
    if (!problem.ok()) return problem;
    auto result = sys::change_mode(target, writer.spec().copy_mode());
    if (!result.ok()) return failed_call("fchmod", base(), result);
    if (durable) result = sys::sync(target);
    if (durable && result.ok()) result = sys::sync(directory);
    return result.ok() ? Trouble{} : failed_call("fsync", base(), result);
}

Trouble Making::write_object() {
    Trouble problem = make_room(writer, layout.size, keep, boot);
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
        found(number);
        added->written = layout.size;
        return {};
    }
    (void)remove_tree(writer.tmp(), temporary.data);
    if (!problem.ok()) return problem;
    return trouble(Trouble::Kind::full, "sixteen different files have the same build-id and size");
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
    RecordParts parts;
    parts.file = file;
    parts.bias = wanted.bias;
    parts.durable = durable;
    parts.proven = proven;
    parts.layout = &layout;
    parts.path = {added->path.data, added->path.size};
    parts.origin = str(wanted.path);
    MappedArray<u8> header;
    if (!header.resize(layout.header_size)) return failed_call("mmap", Error{ENOMEM});
    const auto filled = fill(layout, source, 0, header.size(), header.data());
    if (!filled.ok()) return failed_call("read", filled);
    parts.header = header.data();
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

Trouble open_original(const Wanted &wanted, int *fd, sys::FileIdentity *file) {
    // What has that name now may be a FIFO without a writer.
    const auto opened = sys::open_at(AT_FDCWD, wanted.path, O_RDONLY | O_NONBLOCK);
    *fd = opened.ok() ? opened.value() : -1;
    if (!opened.ok()) return failed_call("open", str(wanted.path), opened);
    const auto result = sys::identify(*fd, file);
    if (!result.ok()) return failed_call("statx", str(wanted.path), result);
    if ((file->mode & S_IFMT) != S_IFREG)
        return trouble(Trouble::Kind::refused, "is no plain file");
    const sys::FileIdentity &mapped = wanted.file;
    if (mapped.inode) {
        const KeyText now = record_key(*file, 0), then = record_key(mapped, 0);
        if (!equal({now.data, now.size}, {then.data, then.size}))
            return trouble(Trouble::Kind::changed, "was changed since it was mapped");
    }
    return {};
}

Trouble add_entry(const StoreWriter &writer, const Wanted &wanted, bool durable, const Keep &keep,
                  Boot &boot, Added *added) {
    Making making{writer, wanted, durable, keep, boot, added, -1, {}, {}, {}, false};
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
    if (!making.layout.ranges.empty()) added->mappable = making.layout.ranges[0].offset;
    making.name = object_name(making.layout, making.file, wanted.bias);
    bool there;
    problem = making.find_same(&there);
    if (problem.ok() && !there) problem = making.write_object();
    if (!problem.ok()) return problem;
    sys::FileIdentity after;
    const auto result = sys::identify(source, &after);
    const KeyText key = record_key(after, wanted.bias);
    if (!result.ok() || !equal({key.data, key.size}, {added->key.data, added->key.size}))
        problem = trouble(Trouble::Kind::changed, "was changed while it was copied");
    else
        problem = making.finish();
    if (!problem.ok() && added->written) drop_object(writer, added->path.data);
    return problem;
}

ErrorOr<int> open_copy_at(const StoreWriter &writer, const char *path, sys::FileIdentity *file,
                          Trouble *problem) {
    Str rest = basename(str(path));
    constexpr const char *kObjects = "objects/";
    const size_t front = length(kObjects);
    Buffer<256> object;
    const size_t whole = length(path);
    if (whole > front + rest.size + 1) object.add({path + front, whole - front - rest.size - 1});
    Outcome outcome;
    const Descriptor directory(open_directory(writer.objects(), object.data, &outcome));
    if (directory.ok()) {
        const int fd = open_file(directory, rest.data, file, &outcome, true);
        if (fd >= 0) return success(fd);
    }
    if (outcome.status == Status::untrusted)
        *problem =
            trouble(Trouble::Kind::untrusted, "its copy could have been written by somebody else");
    else if (outcome.status == Status::no_entry || outcome.status == Status::no_store)
        *problem = failed_call("its copy cannot be read: open", Error{ENOENT});
    else
        *problem = failed_call("its copy cannot be read: open", Error{outcome.error});
    return Error{ENOENT};
}

Trouble promote_entry(const StoreWriter &writer, const char *name, StoredFile &stored) {
    sys::FileIdentity file;
    Trouble problem;
    const auto fd = open_copy_at(writer, stored.record().path, &file, &problem);
    if (!fd.ok()) return problem;
    const Descriptor target(fd);
    auto result = sys::sync(target);
    if (!result.ok()) mark_lost(target, file);
    const Str path = str(stored.record().path), base = basename(path);
    Buffer<256> object;
    const size_t front = length("objects/");
    object.add({path.data + front, path.size - front - base.size - 1});
    const Descriptor directory(open_plain_directory(writer.objects(), object.data));
    if (result.ok()) result = sync_directory(directory);
    if (result.ok()) result = sys::sync(writer.objects());
    if (!result.ok()) return failed_call("fsync", result);
    return write_as_durable(writer, name, stored);
}

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

}  // namespace pht
