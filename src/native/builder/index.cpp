#include "builder/index.h"

#include "store/trust.h"
#include "store/written.h"

namespace pht {

namespace {

constexpr u64 kBrief = 60;            // seconds that a note of what may pass lasts
constexpr size_t kPathsLimit = 1024;  // of a record: view_record() takes no more

// Where a name of an image's record has its load bias, or any other: behind the last dash.
bool bias_of(Str name, u64 *bias) {
    size_t at = name.size;
    while (at > 0 && name.data[at - 1] != '-') --at;
    Cursor cursor{name.data + at, name.data + name.size};
    *bias = cursor.number(16);
    return cursor.ok && cursor.at == cursor.end;
}

sys::FileIdentity identity_of(const Record &head) {
    sys::FileIdentity file;
    file.dev_major = head.dev_major;
    file.dev_minor = head.dev_minor;
    file.inode = head.inode;
    file.size = head.file_size;
    file.mtime = head.mtime;
    file.ctime = head.ctime;
    file.mtime_ns = head.mtime_ns;
    file.ctime_ns = head.ctime_ns;
    return file;
}

constexpr const char *kImage = "image-";

// Whether a record tells of the file that its name stands for. The content in an image's name is
// the copy's, and not in the record.
bool is_named(const Record &head, Str name) {
    const sys::FileIdentity file = identity_of(head);
    if (!starts_with(name, str(kImage))) {
        const KeyText key = record_key(file, head.bias);
        return equal(name, {key.data, key.size});
    }
    const KeyText front = image_key_front(file);
    Buffer<32> tail;
    tail.add("-").add_hex(head.bias);
    return head.inode == 0 && starts_with(name, {front.data, front.size}) &&
           ends_with(name, {tail.data, tail.size}) && name.size > front.size + tail.size;
}

}  // namespace

bool is_copy_path(Str path) {
    Str rest = path;
    for (int i = 0; i < 3; ++i) {
        size_t size = 0;
        while (size < rest.size && rest.data[size] != '/') ++size;
        const Str step = {rest.data, size};
        if (!is_plain(step) || (i == 0 && !equal(step, str("objects")))) return false;
        if (i == 2) return size == rest.size;
        if (size == rest.size) return false;
        rest = {rest.data + size + 1, rest.size - size - 1};
    }
    return false;
}

void StoredFile::read(int index, const char *name) {
    record_ = {};
    note_ = {};
    Outcome outcome;
    const Descriptor fd(open_file(index, name, &file_, &outcome));
    if (!fd.ok() || !buffer_ || file_.size > kRecordLimit) return;
    const size_t size = file_.size;
    const auto got = sys::read_at(fd, buffer_, size, 0);
    if (!got.ok() || got.value() < size) return;
    if (view_note(buffer_, size, &note_)) return;
    if (!view_record(buffer_, size, &record_) || !is_copy_path(str(record_.path))) record_ = {};
    record_.proven = is_record() && !(file_.mode & kOwnerWrites);
}

size_t Index::keep(Str text) {
    const size_t at = text_.size();
    if (!text_.append(text.data, text.size) || !text_.push('\0')) memory_ = false;
    return at;
}

void Index::clear() {
    items_.clear();
    text_.clear();
    memory_ = true;
    keep({});
}

ErrorOr<void> Index::read(const StoreWriter &writer, Boot &boot) {
    clear();
    Names names;
    if (const auto read = names.read(writer.index()); !read.ok()) return read;
    StoredFile stored;
    if (!stored.data()) return Error{ENOMEM};
    for (const char *name; names.next(&name);)
        if (!add(writer, name, stored, boot)) return Error{ENOMEM};
    return {};
}

ErrorOr<void> Index::read_one(const StoreWriter &writer, const char *name, Boot &boot) {
    clear();
    sys::FileIdentity there;
    const auto result = sys::identify_at(writer.index(), name, AT_SYMLINK_NOFOLLOW, &there);
    if (!result.ok()) return result;
    StoredFile stored;
    if (!stored.data() || !add(writer, name, stored, boot)) return Error{ENOMEM};
    return {};
}

bool Index::add(const StoreWriter &writer, const char *name, StoredFile &stored, Boot &boot) {
    stored.read(writer.index(), name);
    const sys::FileIdentity &file = stored.file();
    IndexItem item;
    item.name = keep(str(name));
    item.image = starts_with(str(name), str(kImage));
    item.used = file.mtime;
    if (stored.is_record()) {
        const RecordView &record = stored.record();
        item.kind = IndexItem::Kind::record;
        item.durable = record.durable();
        item.counts = check_boot(*record.head, boot).ok();
        item.named = is_named(*record.head, str(name));
        item.path = keep(str(record.path));
        item.origin = keep(record.origin());
        item.bias = record.head->bias;
        item.object_size = record.head->object_size;
    } else if (stored.is_note()) {
        const NoteView &note = stored.note();
        const sys::KernelNames kernel;
        const u64 now = sys::wall_seconds();
        item.kind = IndexItem::Kind::note;
        item.counts =
            equal(note.kernel, str(kernel.release())) && now >= item.used && now - item.used < kDay;
        item.named = bias_of(str(name), &item.bias);
        item.origin = keep(note.origin);
        item.reason = keep(note.reason);
        item.kernel = keep(note.kernel);
    }
    return items_.push(item) && memory_;
}

bool Index::has_copy(const char *path, const char *but) const {
    for (const IndexItem &item : items_)
        if (item.kind == IndexItem::Kind::record && equal(str(text(item.path)), str(path)) &&
            !equal(str(name(item)), str(but)))
            return true;
    return false;
}

Trouble write_record(const StoreWriter &writer, const KeyText &key, const RecordParts &parts,
                     Boot &boot) {
    const Layout &layout = *parts.layout;
    MappedArray<u8> out;
    Record head = {};
    copy(head.magic, kRecordMagic, sizeof kRecordMagic);
    const sys::FileIdentity &file = parts.file;
    head.dev_major = file.dev_major;
    head.dev_minor = file.dev_minor;
    head.inode = file.inode;
    head.file_size = file.size;
    head.mtime = file.mtime;
    head.ctime = file.ctime;
    head.mtime_ns = file.mtime_ns;
    head.ctime_ns = file.ctime_ns;
    head.bias = parts.bias;
    const Outcome outcome = boot.read();
    if (!outcome.ok())
        return failed_call("reading /proc/sys/kernel/random/boot_id", Error{outcome.error});
    copy(head.made_in, boot.id, sizeof boot.id);
    if (!parts.durable) copy(head.boot_id, boot.id, sizeof boot.id);
    head.object_size = layout.size;
    head.lacking = parts.lacking;
    head.rests_until = parts.rests_until;
    head.refused_by = parts.refused_by;
    head.build_id_at = layout.build_id_at;
    head.build_id_size = layout.build_id.size;
    head.header_size = layout.header_size;
    head.range_count = static_cast<u32>(layout.ranges.size());
    const bool with_origin =
        parts.origin.size && parts.path.size + parts.origin.size + 2 <= kPathsLimit;
    head.path_size =
        static_cast<u32>(parts.path.size + 1 + (with_origin ? parts.origin.size + 1 : 0));
    const u8 nul = 0;
    const auto add = [&](const void *data, size_t size) {
        return out.append(static_cast<const u8 *>(data), size);
    };
    bool memory = add(&head, sizeof head) &&
                  add(layout.ranges.data(), layout.ranges.size() * sizeof(Range)) &&
                  add(parts.path.data, parts.path.size) && add(&nul, 1);
    if (with_origin) memory = memory && add(parts.origin.data, parts.origin.size) && add(&nul, 1);
    memory = memory && add(parts.header, layout.header_size);
    memory = memory && add(parts.present, bitmap_size(layout.size));
    if (!memory) return failed_call("mmap", Error{ENOMEM});
    if (out.size() > kRecordLimit || layout.ranges.size() > 64)
        return trouble(Trouble::Kind::refused, "has more parts than a record can tell of");
    seal_record(out.data(), out.size());
    const u32 mode = writer.spec().record_mode() & (parts.proven ? ~kOwnerWrites : ~0u);
    return writer.write_file(writer.index(), key.data, out.data(), out.size(), mode, parts.synced);
}

namespace {

Record *head_of(StoredFile &stored) {
    return reinterpret_cast<Record *>(stored.data());
}

// A record that was changed in place.
Trouble write_again(const StoreWriter &writer, const char *name, StoredFile &stored, u32 mode,
                    bool synced) {
    const u32 size = head_of(stored)->size;
    seal_record(stored.data(), size);
    return writer.write_file(writer.index(), name, stored.data(), size, mode, synced);
}

}  // namespace

u64 rest_until(bool brief) {
    return sys::wall_seconds() + (brief ? kBrief : kDay);
}

Trouble write_resting(const StoreWriter &writer, const char *name, StoredFile &stored, bool brief) {
    head_of(stored)->rests_until = rest_until(brief);
    return write_again(writer, name, stored, stored.file().mode & 0777, false);
}

Trouble write_refused(const StoreWriter &writer, const char *name, StoredFile &stored) {
    head_of(stored)->refused_by = this_kernel();
    return write_again(writer, name, stored, stored.file().mode & 0777, false);
}

Trouble write_as_durable(const StoreWriter &writer, const char *name, StoredFile &stored) {
    for (u8 &byte : head_of(stored)->boot_id) byte = 0;
    return write_again(writer, name, stored, writer.spec().record_mode(), true);
}

void write_note(const StoreWriter &writer, const KeyText &key, Str origin, Str reason, bool brief,
                Boot &boot) {
    StoredFile stored;
    stored.read(writer.index(), key.data);
    if (stored.is_record() && check_boot(*stored.record().head, boot).ok()) {
        if (stored.record().may_grow()) (void)write_resting(writer, key.data, stored, brief);
        return;
    }
    MappedArray<char> out;
    const sys::KernelNames kernel;
    const auto add = [&](Str text) { return out.append(text.data, text.size); };
    const bool memory = add({kNoteMagic, sizeof kNoteMagic}) && add(str(kernel.release())) &&
                        out.push('\n') && add(reason) && out.push('\n') && add(origin) &&
                        out.push('\n');
    if (!memory || out.size() > kRecordLimit) return;
    const u64 noted = brief ? sys::wall_seconds() - kDay + kBrief : 0;
    writer.write_file(writer.index(), key.data, out.data(), out.size(), writer.spec().record_mode(),
                      false, noted);
}

}  // namespace pht
