#include "store/store.h"

#include "kernel/descriptor.h"
#include "kernel/scratch.h"
#include "store/copy_window.h"
#include "store/file_steps.h"
#include "store/trust.h"
#include "store/written.h"

namespace pht {

namespace {

constexpr Outcome damaged = bad_entry(Status::damaged);

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

// A file of which only size, time and build-id are known is the entry's where all of its bytes
// that are to be mapped are the copy's: all but the headers, the copy's own, which the record has.
// `offset` is that of the target in the copy.
Outcome compare_content(const Region &region, int original, const RecordView &record,
                        CopyWindow *copy, u64 target, u64 length, u64 offset) {
    const u64 headers = record.head->header_size;
    return each_content(region, target, length, [&](u64 start, u64 end, u64 in_original) {
        const u64 in_copy = offset + (start - target);
        const u64 skipped = in_copy < headers ? min(headers - in_copy, end - start) : 0;
        const Outcome outcome =
            each_step(original, in_original + skipped, end - start - skipped,
                      [&](u64 seen, const u8 *bytes, size_t count) {
                          return copy->expect(in_copy + skipped + seen, bytes, count);
                      });
        // The entry is whole; it is another file's.
        return outcome.status == Status::damaged ? bad_entry(Status::no_entry) : outcome;
    });
}

// Whether nothing of a file was changed between two looks.
bool is_same(const sys::FileIdentity &before, const sys::FileIdentity &now) {
    return before.dev_major == now.dev_major && before.dev_minor == now.dev_minor &&
           before.inode == now.inode && before.size == now.size && before.mtime == now.mtime &&
           before.mtime_ns == now.mtime_ns && before.ctime == now.ctime &&
           before.ctime_ns == now.ctime_ns;
}

// objects/<name>/<basename>, one step at a time, each step checked.
int open_copy(int version, const char *path, u64 size, Outcome *outcome) {
    Buffer<256> step;  // a name has 255 bytes at most
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

// Maps a stretch of a copy as text, at a 2 MiB boundary. Most file systems give one by
// themselves; else a place is reserved.
Outcome map_aligned(const Region &region, int copy, u64 offset, u64 length, u64 *address) {
    const int protection = region.text_protection();
    auto result = sys::mmap(0, length, protection, MAP_PRIVATE, copy, offset);
    if (!result.ok()) return refused(Call::mmap, result);
    *address = result.value();
    if (*address % kHugeSize == 0) return done();
    sys::munmap(*address, length);
    const auto reserved = reserve_scratch(length);
    if (!reserved.ok()) return refused(Call::mmap_reserve, reserved);
    *address = reserved.value();
    result = sys::mmap(*address, length, protection, MAP_PRIVATE | MAP_FIXED, copy, offset);
    // A mmap(MAP_FIXED) that failed may leave a hole, soon another thread's: nothing is unmapped.
    return result.ok() ? done() : refused(Call::mmap, result);
}

// Whether what a record tells of is in the file: where nothing was written, there are zeros. File
// systems that cannot tell say that all is.
bool is_written(int copy, u64 offset, u64 length) {
    const auto hole = sys::seek(copy, offset, SEEK_HOLE);
    return !hole.ok() || hole.value() >= offset + length;
}

// The same, and touches its first page.
Outcome map_copy(const Region &region, int copy, u64 offset, u64 length, u64 *at) {
    const Outcome outcome = map_aligned(region, copy, offset, length, at);
    if (!outcome.ok()) return outcome;
    const u64 address = *at;
    // A fault after eviction reads 2 MiB back only under this advice.
    (void)sys::madvise(address, length, MADV_HUGEPAGE);
    const auto touched = touch(address, kPageSize);
    if (touched.ok()) return done();
    sys::munmap(address, length);
    return refused(Call::read, touched);
}

}  // namespace

bool Shared::is_other(u64 than) {
    if (!knows_kernel) {
        const auto mode = sys::seccomp_mode();
        if (mode.ok() && mode.value() == 0) kernel = this_kernel();
        knows_kernel = true;
    }
    return kernel && kernel != than;
}

Store::~Store() {
    if (version_ >= 0) sys::close(version_);
    if (index_ >= 0) sys::close(index_);
}

Outcome Store::open(const char *root, bool system, bool in_memory) {
    in_memory_ = in_memory;
    sys::FileIdentity file;
    // Most machines have none of the system's, and nobody asks whether it could be made.
    if (system && sys::identify_path(root, &file).error() == ENOENT)
        return {Status::no_store, Call::open, ENOENT};
    Outcome outcome;
    const Descriptor top(open_root(root, &outcome));
    if (!top.ok()) return outcome;
    version_ = open_directory(top, "v1", &outcome);
    if (version_ < 0) return outcome;
    index_ = open_directory(version_, "index", &outcome);
    return index_ < 0 ? outcome : done();
}

Outcome Store::find(const Region &region, int original, const sys::FileIdentity &file,
                    Shared &shared, Entry *entry) const {
    entry->close();
    const u64 bias = region.object.load_bias % kHugeSize;
    const BuildId &id = region.object.build_id;
    RecordView &record = entry->record_;
    Outcome outcome = find_record(index_, file, bias, shared.boot, entry->room_, &record);
    const bool is_own = outcome.ok();
    if (outcome.status == Status::no_entry && !in_memory_) {
        const ImageFile image = {original, file, id, region.path_text(), bias};
        ImageMatch &match = entry->comparison_.match;
        outcome = find_image_record(index_, image, shared.boot, entry->room_, &record, &match);
        if (!match.same) {
            entry->comparison_.original = original;
            entry->comparison_.file = file;
            entry->comparison_.index = index_;
        }
    }
    if (!outcome.ok()) return outcome;
    if (is_own && !in_memory_) entry->untried_ = shared.is_other(record.head->refused_by);
    entry->copy_ = open_copy(version_, record.path, record.head->object_size, &outcome);
    if (entry->copy_ < 0) return outcome.status == Status::no_entry ? damaged : outcome;
    // What somebody maps of shared memory is not removed when the disk has it, too. It is removed
    // just now where this fails, which harms nobody.
    if (in_memory_) (void)sys::share_file(entry->copy_);
    if (!in_memory_ && !record.durable() && !record.proven) {
        entry->index_ = index_;
        entry->name_ = record_key(file, bias);
        outcome = check_written(index_, entry->name_.data, entry->copy_);
    }
    return outcome;
}

void Entry::close() {
    if (copy_ >= 0) sys::close(copy_);
    copy_ = index_ = -1;
    untried_ = false;
    record_ = {};
    comparison_ = {};
}

// Where all that the entry has was compared, its record gets another change time, if this user may:
// from then on it is known that the file is the record's, for as long as it is not changed.
void Entry::remember(u64 length) const {
    comparison_.done += length;
    u64 all = 0;
    for (u32 i = 0; i < record_.head->range_count; ++i) all += record_.ranges[i].length;
    const ImageMatch &match = comparison_.match;
    if (comparison_.done != all || !match.can_be_known) return;
    sys::FileIdentity file, record;
    Outcome outcome;
    const Descriptor fd(open_file(comparison_.index, match.name.data, &record, &outcome));
    if (fd.ok() && is_same(record, match.record) &&
        sys::identify(comparison_.original, &file).ok() && is_same(file, comparison_.file))
        sys::touch(fd);
}

// Where in the copy a stretch of the region lies.
Outcome Entry::place(const Region &region, u64 target, u64 length, u64 *offset) const {
    const u64 start = target - region.object.load_bias;
    const Range *range = record_.find(start, length);
    if (!range) return {Status::unsupported, Call::none, 0};
    *offset = range->offset + (start - range->address);
    const u64 size = record_.head->object_size;
    return *offset % kHugeSize || *offset > size || length > size - *offset ? damaged : done();
}

bool Entry::has(const Region &region, u64 address) const {
    u64 offset;
    // What does not fit is told by mapping it.
    return !place(region, address, kHugeSize, &offset).ok() || record_.has(offset);
}

Outcome Entry::map(const Region &region, const Pagemap &pagemap, Mender *mender, u64 target,
                   u64 length, u8 *left, Outcome *why, u64 *address) const {
    u64 offset;
    Outcome outcome = place(region, target, length, &offset);
    if (!outcome.ok()) return outcome;
    // has() was asked page by page: of ranges that lie over each other, which no builder writes, it
    // may have found another one.
    for (u64 at = offset; at < offset + length; at += kHugeSize)
        if (!record_.has(at)) return damaged;
    if (!is_written(copy_, offset, length)) return damaged;
    outcome = map_copy(region, copy_, offset, length, address);
    if (!outcome.ok()) return outcome;
    // Of a page that is huge all is there.
    bool huge = false;
    if (mender) {
        const Copy copy = {copy_, index_, name_.data};
        outcome = mender->look(region, copy, pagemap, offset, target, *address, length / kHugeSize,
                               left, why, &huge);
    }
    CopyWindow window(copy_, *address, offset, length, huge ? kHugeSize : 0);
    if (outcome.ok()) outcome = check_copy(region, record_, &window);
    const int original = comparison_.original;
    if (outcome.ok() && original >= 0) {
        outcome = compare_content(region, original, record_, &window, target, length, offset);
        if (outcome.ok()) remember(length);
    }
    if (!outcome.ok()) sys::munmap(*address, length);
    return outcome;
}

}  // namespace pht
