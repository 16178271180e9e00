#include "store.h"

#include "build.h"
#include "descriptor.h"

namespace pht {

namespace {

using sys::failed;

constexpr u32 kTypeMask = 0170000, kRegular = 0100000, kDirectory = 0040000, kLink = 0120000;
constexpr u32 kOthersWrite = 0022, kSticky = 01000;

constexpr Outcome untrusted = {Status::untrusted, Call::none, 0};
constexpr size_t kPathLimit = 4096;

// An entry that is of no use as it is; writing it anew helps.
constexpr Outcome bad_entry(Status status) {
    return {status, Call::none, 0, true};
}
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

u32 crc32(const u8 *data, size_t size) {
    u32 value = ~0u;
    for (size_t i = 0; i < size; ++i) value = (value >> 8) ^ crc_table.of[(value ^ data[i]) & 255];
    return ~value;
}

// The user whom the kernel shows for whoever has no name in a user namespace, and NFS servers for
// whoever they do not know: what is nobody's may be anybody's.
constexpr u32 kNobody = 65534;

// The user this process is. One that is several (set-user-ID, seteuid(2)) is nobody: what the
// lesser of its users can write, the greater must not run.
u32 user() {
    u32 real = 0, effective = 0, saved = 0;
    if (sys::failed(sys::users(&real, &effective, &saved))) return kNobody;
    return real == effective && real == saved ? effective : kNobody;
}

bool owned_by_us(const sys::FileIdentity &file) {
    return file.owner == 0 || (file.owner == user() && file.owner != kNobody);
}

// A directory that only we or root can put names into. One that is writable by others is as good
// only above the store, when it is sticky and root's, as /tmp and /dev/shm are.
bool trusted_directory(const sys::FileIdentity &file, bool above) {
    if ((file.mode & kTypeMask) != kDirectory || !owned_by_us(file)) return false;
    if (!(file.mode & kOthersWrite)) return true;
    return above && (file.mode & kSticky) && file.owner == 0;
}

// What a missing directory comes to: it can be made where its parent may be written.
Outcome missing_directory(int parent, const char *path, long error) {
    if (error != -sys::kEnoent) return {Status::no_store, Call::open, static_cast<u16>(-error)};
    const long refusal = sys::may_write(parent, path);
    if (failed(refusal)) return {Status::no_store, Call::access, static_cast<u16>(-refusal)};
    return {Status::no_store, Call::none, 0, user() != kNobody};
}

// Every step of an absolute path, symbolic links too: they are followed, so whoever may change
// one may lead us elsewhere. Where there are any, the way they lead has to be checked as well.
Outcome check_way(const char *path, bool *links) {
    char prefix[kPathLimit];
    const size_t size = length(path);
    *links = false;
    if (size >= sizeof prefix || path[0] != '/') return untrusted;
    size_t parent = 1;  // the size of the last prefix that is there
    for (size_t i = 0; i <= size; ++i) {
        if (i > 0 && i < size && path[i] != '/') {
            prefix[i] = path[i];
            continue;
        }
        if (i < size) prefix[i] = '/';
        prefix[i == 0 ? 1 : i] = 0;
        sys::FileIdentity file;
        const long result = sys::identify_path(prefix, &file);
        if (failed(result)) {
            prefix[parent] = 0;
            return missing_directory(sys::kAtFdcwd, prefix, result);
        }
        const u32 type = file.mode & kTypeMask;
        if (type == kLink) {
            if (!owned_by_us(file)) return untrusted;
            *links = true;
        } else if (type != kDirectory) {
            return {Status::no_store, Call::open, sys::kEnotdir};
        } else if (!trusted_directory(file, i < size)) {
            return untrusted;
        }
        parent = i == 0 ? 1 : i;
        if (i < size) prefix[i] = '/';
    }
    return done();
}

// The way to an open directory without any symbolic link.
Outcome check_real_way(int directory) {
    Buffer<40> link;
    link.add("/proc/self/fd/").add_decimal(static_cast<u64>(directory));
    char real[kPathLimit];
    const long size = sys::read_link(link.data, real, sizeof real);
    if (failed(size) || static_cast<size_t>(size) >= sizeof real) return untrusted;
    real[size] = 0;
    bool links;
    const Outcome outcome = check_way(real, &links);
    return links ? untrusted : outcome;
}

int open_directory(int parent, const char *name, Outcome *outcome) {
    const long fd =
        sys::open_at(parent, name, sys::kOpenPath | sys::kOpenDirectory | sys::kOpenNoFollow);
    if (failed(fd)) {
        *outcome = missing_directory(parent, ".", fd);
        // A link, or no directory at all: nothing of ours.
        if (fd == -sys::kEnotdir || fd == -sys::kEloop) *outcome = untrusted;
        return -1;
    }
    sys::FileIdentity file;
    const long result = sys::identify(static_cast<int>(fd), &file);
    if (!failed(result) && trusted_directory(file, false)) return static_cast<int>(fd);
    *outcome = failed(result) ? refused(Call::statx, result) : untrusted;
    sys::close(static_cast<int>(fd));
    return -1;
}

// A regular file below a trusted directory that nobody else can write. Other names of it are no
// danger, owner and mode being the file's own; and perf record links what it saw into ~/.debug.
int open_file(int parent, const char *name, sys::FileIdentity *file, Outcome *outcome) {
    // O_NONBLOCK: opening a FIFO must not wait for a writer.
    const long fd = sys::open_at(
        parent, name,
        sys::kOpenReadOnly | sys::kOpenNoFollow | sys::kOpenNonBlock | sys::kOpenCloexec);
    if (failed(fd)) {
        *outcome = refused(Call::open, fd);
        if (fd == -sys::kEnoent || fd == -sys::kEnotdir) *outcome = bad_entry(Status::no_entry);
        // A link, a socket, a device, a file that its owner may not read: nothing that we wrote.
        if (fd == -sys::kEloop || fd == -sys::kEnxio || fd == -sys::kEnodev ||
            fd == -sys::kEacces || fd == -sys::kEperm)
            *outcome = bad_entry(Status::untrusted);
        return -1;
    }
    const long result = sys::identify(static_cast<int>(fd), file);
    if (!failed(result) && (file->mode & kTypeMask) == kRegular && owned_by_us(*file) &&
        !(file->mode & kOthersWrite))
        return static_cast<int>(fd);
    *outcome = failed(result) ? refused(Call::statx, result) : bad_entry(Status::untrusted);
    sys::close(static_cast<int>(fd));
    return -1;
}

// Reads the 16 bytes that name this boot; see random(4).
Outcome read_boot_id(u8 *out) {
    const Descriptor fd(sys::open("/proc/sys/kernel/random/boot_id"));
    if (fd < 0) return {Status::unreadable, Call::open, static_cast<u16>(-fd)};
    char text[40] = {};
    const long got = sys::read(fd, text, sizeof text);
    if (failed(got)) return {Status::unreadable, Call::read, static_cast<u16>(-got)};
    constexpr Outcome malformed = {Status::unreadable, Call::none, 0};
    if (got < 36) return malformed;
    size_t digits = 0;
    for (int i = 0; i < 36 && digits < 32; ++i) {
        if (text[i] == '-') continue;
        Cursor cursor{text + i, text + i + 1};
        const u64 value = cursor.number(16);
        if (!cursor.ok) return malformed;
        if (digits % 2 == 0)
            out[digits / 2] = static_cast<u8>(value << 4);
        else
            out[digits / 2] = static_cast<u8>(out[digits / 2] | value);
        ++digits;
    }
    return digits == 32 ? done() : malformed;
}

bool zero(const u8 *data, size_t size) {
    for (size_t i = 0; i < size; ++i)
        if (data[i]) return false;
    return true;
}

using KeyText = Buffer<192>;

KeyText key_of(const sys::FileIdentity &file, u64 bias) {
    KeyText key;
    const u64 parts[] = {file.dev_major, file.dev_minor, file.inode,    file.size, file.mtime,
                         file.mtime_ns,  file.ctime,     file.ctime_ns, bias};
    for (const u64 part : parts) {
        if (key.size) key.add("-");
        key.add_hex(part);
    }
    return key;
}

// How a file of a container image is known: inode, device and change time are new wherever the
// image is unpacked, its content, size and modification time (in seconds, as in a tar) are not.
KeyText image_key_of(const sys::FileIdentity &file, const BuildId &id, u64 bias) {
    KeyText key;
    key.add("image-").add_hex(file.size).add("-").add_hex(file.mtime).add("-");
    for (int i = 0; i < id.size; ++i) {
        key.add_hex(id.bytes[i] >> 4).add_hex(id.bytes[i] & 15);
    }
    key.add("-").add_hex(bias);
    return key;
}

// A record in memory, its parts checked against its size.
struct RecordView {
    const Record *head = nullptr;
    const Range *ranges = nullptr;
    const char *path = nullptr;
    const u8 *header = nullptr;
};

bool view_record(const u8 *data, size_t size, RecordView *out) {
    if (size < sizeof(Record)) return false;
    const auto *head = reinterpret_cast<const Record *>(data);
    if (compare(head->magic, kRecordMagic, sizeof kRecordMagic) != 0 || head->size != size)
        return false;
    constexpr size_t kCovered = offsetof(Record, crc) + sizeof head->crc;
    if (crc32(data + kCovered, size - kCovered) != head->crc) return false;
    if (head->range_count > 64 || head->path_size < 2 || head->path_size > 1024) return false;
    if (size !=
        sizeof(Record) + head->range_count * sizeof(Range) + head->path_size + head->header_size)
        return false;
    out->head = head;
    out->ranges = reinterpret_cast<const Range *>(data + sizeof(Record));
    out->path = reinterpret_cast<const char *>(out->ranges + head->range_count);
    out->header = reinterpret_cast<const u8 *>(out->path + head->path_size);
    return out->path[head->path_size - 1] == 0;
}

bool same_identity(const Record &head, const sys::FileIdentity &file, u64 bias) {
    return head.dev_major == file.dev_major && head.dev_minor == file.dev_minor &&
           head.inode == file.inode && head.file_size == file.size && head.mtime == file.mtime &&
           head.mtime_ns == file.mtime_ns && head.ctime == file.ctime &&
           head.ctime_ns == file.ctime_ns && head.bias == bias;
}

// Of a record found by its image key: the build-id was part of the key, and is compared with the
// copy's like any other.
bool same_image(const Record &head, const sys::FileIdentity &file, u64 bias) {
    return head.inode == 0 && head.file_size == file.size && head.mtime == file.mtime &&
           head.bias == bias && head.build_id_size > 0;
}

Outcome read_exactly(int fd, u8 *to, size_t size, u64 offset) {
    while (size > 0) {
        const long got = sys::uninterrupted([&] { return sys::pread(fd, to, size, offset); });
        if (failed(got)) return refused(Call::read, got);
        if (got == 0) return damaged;
        const auto n = static_cast<size_t>(got);
        to += n, offset += n, size -= n;
    }
    return done();
}

// A copy's bytes, read through a mapping with MADV_HUGEPAGE: read(2) would fill the page cache
// with small folios, and whoever maps the copy afterwards would get small pages.
class CopyWindow {
public:
    // [offset, offset + length) is mapped at `address` already, the first `present` bytes of it
    // by the page table; what lies outside is mapped here.
    CopyWindow(int fd, u64 address, u64 offset, u64 length, u64 present)
        : fd_(fd), address_(address), offset_(offset), length_(length), present_(present) {}
    ~CopyWindow() { drop(); }
    CopyWindow(const CopyWindow &) = delete;
    CopyWindow &operator=(const CopyWindow &) = delete;

    // Whether the copy has exactly these bytes at `at`.
    Outcome expect(u64 at, const u8 *bytes, size_t size) {
        if (at < offset_ || at + size > offset_ + length_) {
            const Outcome outcome = move_to(at, size);
            if (!outcome.ok()) return outcome;
        }
        const u64 where = address_ + (at - offset_);
        const u64 page = round_down(where, kPageSize);
        // Answers with an error where touching would raise SIGBUS.
        const u64 end = round_up(where + size, kPageSize);
        const long result =
            end <= address_ + present_ ? 0 : sys::madvise(page, end - page, sys::kMadvPopulateRead);
        if (failed(result)) return refused(Call::read, result);
        return compare(reinterpret_cast<const void *>(where), bytes, size) == 0 ? done() : damaged;
    }

private:
    Outcome move_to(u64 at, size_t size) {
        drop();
        present_ = 0;
        offset_ = round_down(at, kHugeSize);
        length_ = round_up(at + size, kHugeSize) - offset_;
        const Outcome outcome = reserve_scratch(length_, &address_);
        if (!outcome.ok()) return outcome;
        const long result = sys::mmap(address_, length_, sys::kProtRead,
                                      sys::kMapPrivate | sys::kMapFixed, fd_, offset_);
        // As in map_aligned().
        if (failed(result)) return refused(Call::mmap, result);
        ours_ = true;
        sys::madvise(address_, length_, sys::kMadvHugepage);
        return done();
    }
    void drop() {
        if (ours_) sys::munmap(address_, length_);
        ours_ = false;
    }

    int fd_;
    u64 address_, offset_, length_, present_;
    bool ours_ = false;
};

// The copy must begin with the very headers the record tells of, and carry the build-id of the
// object that is mapped.
Outcome check_copy(const Region &region, const RecordView &record, CopyWindow *copy) {
    const BuildId &id = region.object.build_id;
    if (record.head->build_id_size != id.size) return damaged;
    const Outcome outcome = copy->expect(0, record.header, record.head->header_size);
    if (!outcome.ok() || id.size == 0) return outcome;
    if (record.head->build_id_at > record.head->object_size - id.size) return damaged;
    return copy->expect(record.head->build_id_at, id.bytes, id.size);
}

// objects/<name>/<basename>, one step at a time, each step checked.
int open_copy(int version, const char *path, u64 size, Outcome *outcome) {
    Buffer<1024> step;
    int parent = version;
    const char *at = path;
    for (;;) {
        step.size = 0;
        while (*at && *at != '/') step.add({at++, 1});
        const bool last = *at == 0;
        const Str name = {step.data, step.size};
        if (name.size == 0 || equal(name, str(".")) || equal(name, str(".."))) {
            *outcome = damaged;
            break;
        }
        if (last) {
            sys::FileIdentity file;
            int fd = open_file(parent, step.data, &file, outcome);
            if (fd >= 0 && file.size != size) {
                sys::close(fd);
                fd = -1;
                *outcome = damaged;
            }
            if (parent != version) sys::close(parent);
            return fd;
        }
        const int next = open_directory(parent, step.data, outcome);
        if (next < 0) {
            // What is below `objects`, which is ours then, can be replaced.
            const Status status = outcome->status;
            if (parent != version || status != Status::untrusted)
                *outcome = bad_entry(status == Status::untrusted ? status : Status::damaged);
        }
        if (parent != version) sys::close(parent);
        if (next < 0) return -1;
        parent = next;
        ++at;
    }
    if (parent != version) sys::close(parent);
    return -1;
}

// Where in the copy a stretch lies: nullptr unless one range holds all of it.
const Range *find_range(const RecordView &record, u64 address, u64 length) {
    const u32 count = record.head ? record.head->range_count : 0;
    for (u32 i = 0; i < count; ++i) {
        const Range &range = record.ranges[i];
        // Modulo 2^64: the first page of a program may begin below its address 0.
        const u64 at = address - range.address;
        if (at <= range.length && length <= range.length - at) return &range;
    }
    return nullptr;
}

constexpr u64 kDay = 24ul * 60 * 60;

bool is_recent(const sys::FileIdentity &file) {
    const u64 today = sys::wall_seconds();
    return today >= file.mtime && today - file.mtime < kDay;
}

bool is_note(const u8 *data, size_t size) {
    return size > sizeof kNoteMagic && compare(data, kNoteMagic, sizeof kNoteMagic) == 0;
}

bool note_holds(const u8 *data, const sys::FileIdentity &file) {
    const sys::KernelNames kernel;
    const Str release = str(kernel.release());
    const Str noted = {reinterpret_cast<const char *>(data) + sizeof kNoteMagic,
                       file.size - sizeof kNoteMagic};
    return is_recent(file) && noted.size > release.size && starts_with(noted, release) &&
           noted.data[release.size] == '\n';
}

// Entries are evicted by when they were last used; once a day is near enough.
void note_use(int fd, const sys::FileIdentity &record) {
    if (!is_recent(record)) sys::touch(fd);
}

}  // namespace

Store::~Store() {
    if (version_ >= 0) sys::close(version_);
    if (index_ >= 0) sys::close(index_);
}

Outcome Store::open(const char *root, bool system) {
    system_ = system;
    sys::FileIdentity file;
    // Most machines have none of the system's, and nobody asks whether it could be made.
    if (system && sys::identify_path(root, &file) == -sys::kEnoent)
        return {Status::no_store, Call::open, sys::kEnoent};
    bool links;
    Outcome outcome = check_way(root, &links);
    if (!outcome.ok()) return outcome;
    const Descriptor top(sys::open_at(sys::kAtFdcwd, root, sys::kOpenPath | sys::kOpenDirectory));
    if (top < 0) return {Status::no_store, Call::open, static_cast<u16>(-top)};
    if (links) outcome = check_real_way(top);
    if (!outcome.ok()) return outcome;
    version_ = open_directory(top, "v1", &outcome);
    if (version_ < 0) return outcome;
    index_ = open_directory(version_, "index", &outcome);
    return index_ < 0 ? outcome : done();
}

namespace {

// Reads and checks one record of the index; `check` compares it with the original's identity.
template <class Check>
Outcome read_record(int index, const char *name, Shared &shared, u8 *buffer, RecordView *record,
                    Check check) {
    Outcome outcome;
    sys::FileIdentity file;
    const Descriptor fd(open_file(index, name, &file, &outcome));
    if (fd < 0) return outcome;
    if (file.size > kRecordLimit) return damaged;
    outcome = read_exactly(fd, buffer, file.size, 0);
    if (outcome.ok() && is_note(buffer, file.size)) {
        outcome = note_holds(buffer, file) ? Outcome{Status::unbuildable, Call::none, 0}
                                           : bad_entry(Status::no_entry);
    }
    if (outcome.ok() && (!view_record(buffer, file.size, record) || !check(*record->head)))
        outcome = damaged;
    if (outcome.ok() && record->head && !zero(record->head->boot_id, 16)) {
        // Not known to be on disk: whatever a power cut left of it must not be executed.
        if (!shared.booted) outcome = read_boot_id(shared.boot_id);
        shared.booted = outcome.ok();
        if (outcome.ok() && compare(shared.boot_id, record->head->boot_id, 16) != 0)
            outcome = bad_entry(Status::stale);
    }
    if (outcome.ok()) note_use(fd, file);
    return outcome;
}

// Maps a stretch of a copy as text, at a 2 MiB boundary. Most file systems give one by
// themselves; else a place is reserved.
Outcome map_aligned(const Region &region, int copy, u64 offset, u64 length, u64 *address) {
    const int protection = region.text_protection();
    long result = sys::mmap(0, length, protection, sys::kMapPrivate, copy, offset);
    if (failed(result)) return refused(Call::mmap, result);
    *address = static_cast<u64>(result);
    if (*address % kHugeSize == 0) return done();
    sys::munmap(*address, length);
    const Outcome outcome = reserve_scratch(length, address);
    if (!outcome.ok()) return outcome;
    result =
        sys::mmap(*address, length, protection, sys::kMapPrivate | sys::kMapFixed, copy, offset);
    // A mmap(MAP_FIXED) that failed may leave a hole, soon another thread's: nothing is unmapped.
    return failed(result) ? refused(Call::mmap, result) : done();
}

// The same, and touches its first page.
Outcome map_copy(const Region &region, int copy, u64 offset, u64 length, u64 *at) {
    const Outcome outcome = map_aligned(region, copy, offset, length, at);
    if (!outcome.ok()) return outcome;
    const u64 address = *at;
    // A fault after eviction reads 2 MiB back only under this advice.
    sys::madvise(address, length, sys::kMadvHugepage);
    const long touched = sys::madvise(address, kPageSize, sys::kMadvPopulateRead);
    if (!failed(touched)) return done();
    sys::munmap(address, length);
    return refused(Call::read, touched);
}

}  // namespace

Outcome Store::map(const Region &region, const sys::FileIdentity &file, Shared &shared, u64 target,
                   u64 length, u64 *address) const {
    Outcome outcome = map_entry(region, file, shared, target, length, address);
    outcome.buildable = outcome.buildable && !failed(sys::may_write(index_, "."));
    return outcome;
}

Outcome Store::map_entry(const Region &region, const sys::FileIdentity &file, Shared &shared,
                         u64 target, u64 length, u64 *address) const {
    alignas(Record) u8 buffer[kRecordLimit];
    const u64 bias = region.object.load_bias % kHugeSize;
    const BuildId &id = region.object.build_id;

    RecordView record;
    Outcome outcome =
        read_record(index_, key_of(file, bias).data, shared, buffer, &record,
                    [&](const Record &head) { return same_identity(head, file, bias); });
    if (outcome.status == Status::no_entry && system_ && id.size)
        outcome = read_record(index_, image_key_of(file, id, bias).data, shared, buffer, &record,
                              [&](const Record &head) { return same_image(head, file, bias); });
    if (!outcome.ok()) return outcome;

    const u64 start = target - region.object.load_bias;
    const Range *range = find_range(record, start, length);
    if (!range) return {Status::unsupported, Call::none, 0};
    const u64 offset = range->offset + (start - range->address);
    const u64 size = record.head->object_size;
    if (offset % kHugeSize || offset > size || length > size - offset) return damaged;
    const Descriptor copy(open_copy(version_, record.path, size, &outcome));
    if (copy < 0) return outcome.status == Status::no_entry ? damaged : outcome;
    outcome = map_copy(region, copy, offset, length, address);
    bool huge = outcome.ok() && shared.pagemap.all_huge(*address, kHugeSize);
    // Somebody read the copy with read(2) and left small folios in the page cache: drop them,
    // which works while nobody has them mapped, and read again.
    if (outcome.ok() && !huge) {
        sys::munmap(*address, length);
        sys::drop_cached(copy, offset, length);
        outcome = map_copy(region, copy, offset, length, address);
    }
    if (outcome.ok()) {
        CopyWindow window(copy, *address, offset, length, huge ? kHugeSize : 0);
        outcome = check_copy(region, record, &window);
        if (!outcome.ok()) sys::munmap(*address, length);
    }
    return outcome;
}

namespace {

// Whether a directory, or what there is of the way to it, is on overlayfs.
bool is_on_overlay(const char *directory) {
    char path[kPathLimit];
    size_t size = length(directory);
    if (size >= sizeof path) return false;
    copy(path, directory, size + 1);
    u64 type = 0;
    while (sys::file_system(path, &type) == -sys::kEnoent && size > 1) {
        while (size > 1 && path[size - 1] != '/') --size;
        if (size > 1) --size;
        path[size] = 0;
    }
    return type == sys::kOverlayFs;
}

constexpr u64 kRoomToBuild = 256ul << 20;

// Whether a limit of memory leaves less room than that. Where /proc does not tell, it does.
bool is_cramped() {
    const u64 addresses = sys::resource_limit(sys::kLimitAddresses, sys::kUnlimited);
    const u64 data = sys::resource_limit(sys::kLimitData, sys::kUnlimited);
    if (addresses == sys::kUnlimited && data == sys::kUnlimited) return false;
    // Pages: addresses, resident, shared, text, 0, data; see proc_pid_statm(5).
    u64 pages[6] = {};
    const Descriptor fd(sys::open("/proc/self/statm"));
    char text[160];
    const long got = fd < 0 ? 0 : sys::read(fd, text, sizeof text);
    Cursor cursor{text, text + max<long>(got, 0)};
    for (u64 &number : pages) {
        number = cursor.number(10);
        cursor.spaces();
    }
    const auto near = [](u64 limit, u64 used) { return limit < used * kPageSize + kRoomToBuild; };
    return !cursor.ok || near(addresses, pages[0]) || near(data, pages[5]);
}

}  // namespace

Stores::Stores(const Array<char> &disk, const Array<char> &shm, bool on_overlay, bool when_cramped,
               const Pagemap &pagemap)
    : shared_{pagemap}, on_overlay_(on_overlay), when_cramped_(when_cramped) {
    const auto add = [&](const Array<char> &roots, Backing backing) {
        for (size_t at = 0; at < roots.size() && count_ < kMost;) {
            places_[count_].root = roots.data() + at;
            places_[count_].backing = backing;
            places_[count_].system = backing == Backing::store && at == 0;
            ++count_;
            at += length(roots.data() + at) + 1;
        }
    };
    add(disk, Backing::store);
    add(shm, Backing::shm);
}

Outcome Stores::may_build() const {
    if (!when_cramped_ && is_cramped()) return {Status::cramped, Call::none, 0};
    for (int i = 0; i < count_ && !on_overlay_; ++i) {
        const Place &place = places_[i];
        if (place.backing == Backing::store && !place.system && is_on_overlay(place.root))
            return {Status::overlay, Call::none, 0};
    }
    return done();
}

Outcome Stores::map(Backing backing, const Region &region, const sys::FileIdentity &file,
                    u64 target, u64 length, u64 *address) const {
    Outcome result = {Status::no_store, Call::none, 0};
    for (int i = 0; i < count_; ++i) {
        Place &place = places_[i];
        if (place.backing != backing) continue;
        if (place.opened.status == Status::pending)
            place.opened = place.store.open(place.root, place.system);
        Outcome outcome = place.opened;
        if (outcome.ok()) outcome = place.store.map(region, file, shared_, target, length, address);
        if (outcome.ok()) return outcome;
        const bool says_little =
            outcome.status == Status::no_store || outcome.status == Status::no_entry;
        const bool buildable = result.buildable || (outcome.buildable && !place.system);
        if (!says_little || result.status == Status::no_store) result = outcome;
        result.buildable = buildable;
    }
    if (!result.buildable) return result;
    const Outcome allowed = may_build();
    if (allowed.ok()) return result;
    result.buildable = false;
    const bool says_little = result.status == Status::no_store || result.status == Status::no_entry;
    return says_little ? allowed : result;
}

}  // namespace pht
