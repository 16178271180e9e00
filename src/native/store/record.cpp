#include "store/record.h"

#include "kernel/descriptor.h"
#include "store/trust.h"
#include "store/written.h"

namespace pht {

namespace {

constexpr Outcome damaged = bad_entry(Status::damaged);

struct CrcTable {
    u32 of[256] = {};
    constexpr CrcTable() {
        for (u32 i = 0; i < 256; ++i) {
            u32 value = i;
            for (int bit = 0; bit < 8; ++bit)
                value = (value >> 1) ^ ((value & 1) ? 0xedb88320u : 0u);
            of[i] = value;
        }
    }
};
constexpr CrcTable crc_table;

bool zero(const u8 *data, size_t size) {
    for (size_t i = 0; i < size; ++i)
        if (data[i]) return false;
    return true;
}

bool is_recent(const sys::FileIdentity &file) {
    const u64 today = sys::wall_seconds();
    return today >= file.mtime && today - file.mtime < kDay;
}

bool is_note(const u8 *data, size_t size) {
    return size > sizeof kNoteMagic && compare(data, kNoteMagic, sizeof kNoteMagic) == 0;
}

bool note_holds(const u8 *data, const sys::FileIdentity &file) {
    const sys::KernelNames kernel;
    NoteView note;
    return is_recent(file) && view_note(data, file.size, &note) &&
           equal(note.kernel, str(kernel.release()));
}

// Entries are evicted by when they were last used; once a day is near enough.
void note_use(int fd, const sys::FileIdentity &record) {
    if (!is_recent(record)) sys::touch(fd);
}

// Reads one record; check(its file) says whether it tells of the original that was asked for.
template <class Check>
Outcome read_record(int index, const KeyText &key, Boot &boot, RecordRoom &room, RecordView *record,
                    bool notes_use, Check check) {
    sys::FileIdentity file;
    Outcome outcome;
    const Descriptor fd(open_file(index, key.data, &file, &outcome));
    if (!fd.ok()) return outcome;
    if (file.size > kRecordLimit) return damaged;
    auto *const buffer = reinterpret_cast<u8 *>(room.take(file.size));
    if (!buffer) return {Status::no_memory, Call::none, 0};
    const auto got = sys::read_at(fd, buffer, file.size, 0);
    if (!got.ok()) return refused(Call::read, got);
    if (got.value() != file.size) return damaged;
    if (is_note(buffer, file.size))
        return note_holds(buffer, file) ? Outcome{Status::unbuildable, Call::none, 0}
                                        : bad_entry(Status::no_entry);
    if (!view_record(buffer, file.size, record)) return damaged;
    record->proven = !(file.mode & kOwnerWrites);
    outcome = check(file);
    if (outcome.ok()) outcome = check_boot(*record->head, boot);
    if (outcome.ok() && notes_use) note_use(fd, file);
    return outcome;
}

// Seconds between two changes that show in a file's times, on every file system.
constexpr u64 kLongestTick = 2;

// Whether the first of two times is the earlier one; seconds as two's complement.
bool is_earlier(u64 seconds, u32 nanoseconds, u64 than, u32 and_nanoseconds) {
    const auto a = static_cast<long long>(seconds), b = static_cast<long long>(than);
    return a < b || (a == b && nanoseconds < and_nanoseconds);
}

bool has_change_time(const sys::FileIdentity &file) {
    return file.ctime != file.mtime || file.ctime_ns != file.mtime_ns;
}

bool is_on_one_device(const sys::FileIdentity &file, const sys::FileIdentity &record) {
    return file.dev_major == record.dev_major && file.dev_minor == record.dev_minor;
}

bool is_on_overlay(int fd) {
    sys::FileSystem system;
    return sys::file_system_of(fd, &system).ok() && system.type == OVERLAYFS_SUPER_MAGIC;
}

// Whether what they are on came together. An overlay whose layers are on several file systems shows
// a device for each of them; of btrfs, which does so for subvolumes, one may take another's place.
bool came_together(const ImageFile &image, const sys::FileIdentity &record) {
    const sys::FileIdentity &file = image.file;
    return is_on_one_device(file, record) ||
           (file.mount && file.mount == record.mount && is_on_overlay(image.fd));
}

// Whether a file was there, as it is, before its record was: made here or unpacked here. Whatever
// changes or replaces a file gives it a change time, which no user can set (but for moving a whole
// directory in the place of another). File systems without one show the time of modification in its
// place; and with a clock that was set back, what was changed a moment ago looks old.
bool is_older(const sys::FileIdentity &file, const sys::FileIdentity &record) {
    const bool alike = is_on_one_device(file, record);
    return (has_change_time(file) || (alike && has_change_time(record))) &&
           is_earlier(file.ctime, file.ctime_ns, record.ctime, record.ctime_ns) &&
           !is_earlier(sys::wall_seconds(), 0, record.ctime, 0);
}

// Where it cannot be known that it is the same, on the very device that the entry was made on, it
// is not: there a file is known by what the kernel knows. An overlay file system has no device of
// its own.
Outcome check_image(const RecordView &record, const ImageFile &image, ImageMatch *match) {
    const Record &head = *record.head;
    const sys::FileIdentity &file = image.file;
    if (head.inode != 0 || head.file_size != file.size || head.mtime != file.mtime ||
        head.bias != image.bias || head.build_id_size != image.id.size)
        return damaged;
    const bool in_place = equal(record.origin(), image.path) && came_together(image, match->record);
    match->same = in_place && is_older(file, match->record);
    // What is younger may be changed again within its times.
    match->can_be_known = in_place && has_change_time(file) &&
                          is_earlier(file.ctime + kLongestTick, 0, sys::wall_seconds(), 0);
    if (match->same || head.dev_major != file.dev_major || head.dev_minor != file.dev_minor)
        return done();
    return is_on_overlay(image.fd) ? done() : bad_entry(Status::no_entry);
}

}  // namespace

u64 this_kernel() {
    const sys::KernelNames names;
    const auto sum = [](const char *text) -> u64 {
        return crc32(reinterpret_cast<const u8 *>(text), length(text));
    };
    return max<u64>(sum(names.release()) << 32 | sum(names.version()), 1);
}

u32 crc32(const u8 *data, size_t size) {
    u32 value = ~0u;
    for (size_t i = 0; i < size; ++i) value = (value >> 8) ^ crc_table.of[(value ^ data[i]) & 255];
    return ~value;
}

Outcome Boot::read() {
    if (known) return done();
    const Descriptor fd(sys::open("/proc/sys/kernel/random/boot_id"));
    if (!fd.ok()) return {Status::unreadable, Call::open, fd.error()};
    char text[40] = {};
    const auto got = sys::read(fd, text, sizeof text);
    if (!got.ok()) return {Status::unreadable, Call::read, got.error()};
    constexpr Outcome malformed = {Status::unreadable, Call::none, 0};
    if (got.value() < 36) return malformed;
    size_t digits = 0;
    for (int i = 0; i < 36 && digits < 32; ++i) {
        if (text[i] == '-') continue;
        Cursor cursor{text + i, text + i + 1};
        const u64 value = cursor.number(16);
        if (!cursor.ok) return malformed;
        if (digits % 2 == 0)
            id[digits / 2] = static_cast<u8>(value << 4);
        else
            id[digits / 2] = static_cast<u8>(id[digits / 2] | value);
        ++digits;
    }
    known = digits == 32;
    return known ? done() : malformed;
}

namespace {
constexpr size_t kCovered = offsetof(Record, crc) + sizeof(Record::crc);
}  // namespace

void seal_record(u8 *data, size_t size) {
    auto *head = reinterpret_cast<Record *>(data);
    head->size = static_cast<u32>(size);
    head->crc = crc32(data + kCovered, size - kCovered);
}

bool view_record(const u8 *data, size_t size, RecordView *out) {
    if (size < sizeof(Record)) return false;
    const auto *head = reinterpret_cast<const Record *>(data);
    if (compare(head->magic, kRecordMagic, sizeof kRecordMagic) != 0 || head->size != size)
        return false;
    if (crc32(data + kCovered, size - kCovered) != head->crc) return false;
    if (head->range_count > 64 || head->path_size < 2 || head->path_size > 1024) return false;
    const size_t variable = head->range_count * sizeof(Range) + head->path_size + head->header_size;
    if (head->object_size > kRecordLimit * 8 * kHugeSize ||
        size != sizeof(Record) + variable + bitmap_size(head->object_size))
        return false;
    out->head = head;
    out->ranges = reinterpret_cast<const Range *>(data + sizeof(Record));
    out->path = reinterpret_cast<const char *>(out->ranges + head->range_count);
    out->header = reinterpret_cast<const u8 *>(out->path + head->path_size);
    out->present = out->header + head->header_size;
    return out->path[head->path_size - 1] == 0;
}

bool view_note(const u8 *data, size_t size, NoteView *out) {
    if (!is_note(data, size)) return false;
    const auto *at = reinterpret_cast<const char *>(data) + sizeof kNoteMagic;
    const char *end = reinterpret_cast<const char *>(data) + size;
    Str *const parts[] = {&out->kernel, &out->reason, &out->origin};
    for (Str *part : parts) {
        const char *stop = at;
        while (stop < end && *stop != '\n') ++stop;
        // A path may have line ends in it.
        if (part == &out->origin && stop < end) stop = end - (end[-1] == '\n');
        *part = {at, static_cast<size_t>(stop - at)};
        at = stop < end ? stop + 1 : end;
    }
    return true;
}

bool RecordView::durable() const {
    return zero(head->boot_id, sizeof head->boot_id);
}

Str RecordView::origin() const {
    const size_t at = length(path) + 1;
    return at < head->path_size ? str(path + at) : Str{};
}

Outcome check_boot(const Record &head, Boot &boot) {
    if (zero(head.boot_id, sizeof head.boot_id)) return done();
    const Outcome outcome = boot.read();
    if (!outcome.ok()) return outcome;
    return compare(boot.id, head.boot_id, sizeof boot.id) == 0 ? done() : bad_entry(Status::stale);
}

KeyText record_key(const sys::FileIdentity &file, u64 bias) {
    KeyText key;
    const u64 parts[] = {file.dev_major, file.dev_minor, file.inode,    file.size, file.mtime,
                         file.mtime_ns,  file.ctime,     file.ctime_ns, bias};
    for (const u64 part : parts) {
        if (key.size) key.add("-");
        key.add_hex(part);
    }
    return key;
}

KeyText image_key_front(const sys::FileIdentity &file) {
    KeyText key;
    key.add("image-").add_hex(file.size).add("-").add_hex(file.mtime).add("-");
    return key;
}

KeyText image_key(const sys::FileIdentity &file, const BuildId &id, Str path, u64 bias) {
    KeyText key = image_key_front(file);
    for (int i = 0; i < id.size; ++i) {
        key.add_hex(id.bytes[i] >> 4).add_hex(id.bytes[i] & 15);
    }
    const Str name = basename(path);
    if (!id.size)
        key.add("name").add_hex(crc32(reinterpret_cast<const u8 *>(name.data), name.size));
    key.add("-").add_hex(bias);
    return key;
}

bool is_record_of(const Record &head, const sys::FileIdentity &file, u64 bias) {
    return head.dev_major == file.dev_major && head.dev_minor == file.dev_minor &&
           head.inode == file.inode && head.file_size == file.size && head.mtime == file.mtime &&
           head.mtime_ns == file.mtime_ns && head.ctime == file.ctime &&
           head.ctime_ns == file.ctime_ns && head.bias == bias;
}

const Range *RecordView::find(u64 address, u64 length) const {
    const u32 count = head ? head->range_count : 0;
    for (u32 i = 0; i < count; ++i) {
        const Range &range = ranges[i];
        // Modulo 2^64: the first page of a program may begin below its address 0.
        const u64 at = address - range.address;
        if (at <= range.length && length <= range.length - at) return &range;
    }
    return nullptr;
}

Outcome find_record(int index, const sys::FileIdentity &file, u64 bias, Boot &boot,
                    RecordRoom &room, RecordView *record) {
    return read_record(index, record_key(file, bias), boot, room, record, true,
                       [&](const sys::FileIdentity &) {
                           return is_record_of(*record->head, file, bias) ? done() : damaged;
                       });
}

// Its use is not noted: that would give the record another change time.
Outcome find_image_record(int index, const ImageFile &image, Boot &boot, RecordRoom &room,
                          RecordView *record, ImageMatch *match) {
    match->name = image_key(image.file, image.id, image.path, image.bias);
    return read_record(index, match->name, boot, room, record, false,
                       [&](const sys::FileIdentity &file) {
                           match->record = file;
                           return check_image(*record, image, match);
                       });
}

}  // namespace pht
