#include "store/written.h"

#include "kernel/descriptor.h"
#include "store/trust.h"

namespace pht {

namespace {

// The kernel writes back what has been dirty for half a minute; see dirty_expire_centisecs in
// Documentation/admin-guide/sysctl/vm.rst.
constexpr u64 kFirstMinutes = 600;  // seconds

// What the file system may have of its own in a file's blocks.
constexpr u64 kBlocksBeside = 64ul * 1024;

// The cached pages of what was written. Reading ahead caches holes as well, as many pages of which
// may hide that others were dropped.
bool count_written(int copy, const sys::FileIdentity &file, sys::CachedPages *out) {
    *out = {};
    for (u64 at = 0; at < file.size;) {
        const auto data = sys::seek(copy, at, SEEK_DATA);
        if (data.error() == ENXIO || (data.ok() && data.value() >= file.size)) break;
        const auto hole = data.ok() ? sys::seek(copy, data.value(), SEEK_HOLE) : data;
        const u64 start = data.ok() ? data.value() : at;
        const u64 end = hole.ok() && hole.value() > start ? hole.value() : file.size;
        sys::CachedPages part;
        if (!sys::count_cached(copy, start, end - start, &part).ok()) return false;
        out->cached += part.cached;
        out->dirty += part.dirty;
        out->written_back += part.written_back;
        at = end;
    }
    return out->cached || !is_stacked(copy);
}

// Whether as much is cached as the file takes of the disk, but for the file system's own.
bool has_all(const sys::CachedPages &pages, const sys::FileIdentity &file) {
    return pages.cached * kPageSize + kBlocksBeside >= min(file.disk_bytes, file.size);
}

}  // namespace

bool is_stacked(int fd) {
    sys::FileSystem system;
    return !sys::file_system_of(fd, &system).ok() || system.type == OVERLAYFS_SUPER_MAGIC;
}

bool is_all_cached(int copy) {
    sys::FileIdentity file;
    sys::CachedPages pages;
    return sys::identify(copy, &file).ok() &&
           (!count_written(copy, file, &pages) || has_all(pages, file));
}

bool tells_nothing(u16 error) {
    constexpr u16 kRefusals[] = {EPERM, EACCES, EINTR, EINVAL, ENOSYS};
    for (const u16 refusal : kRefusals)
        if (error == refusal) return true;
    return false;
}

void mark_lost(int copy, const sys::FileIdentity &file) {
    (void)sys::change_mode(copy, (file.mode & 07777) | kLost);
}

// A clock that was set back makes nothing young.
bool is_young(const sys::FileIdentity &copy) {
    const u64 now = sys::wall_seconds();
    return now >= copy.mtime && now - copy.mtime < kFirstMinutes;
}

Outcome check_written(int index, const char *name, int copy) {
    Outcome outcome;
    sys::FileIdentity record, file;
    const Descriptor fd(open_file(index, name, &record, &outcome));
    if (!fd.ok()) return outcome;
    if (!sys::identify(copy, &file).ok() || (file.mode & kLost)) return bad_entry(Status::damaged);
    const auto awaited = sys::await_written(copy);
    if (!awaited.ok() && !tells_nothing(awaited.error())) {
        mark_lost(copy, file);
        return bad_entry(Status::damaged);
    }
    sys::CachedPages pages;
    const bool counted = count_written(copy, file, &pages);
    // Every page that was ever written is still cached and on disk: then none was dropped and read
    // again, and there would have been an error.
    if (awaited.ok() && counted && pages.dirty == 0 && pages.written_back == 0 &&
        pages.cached * kPageSize >= file.disk_bytes) {
        (void)sys::change_mode(fd, record.mode & 07555);
        return done();
    }
    // A page that is gone had been written back before, or lost.
    return is_young(file) && (!counted || has_all(pages, file)) ? done()
                                                                : bad_entry(Status::unproven);
}

}  // namespace pht
