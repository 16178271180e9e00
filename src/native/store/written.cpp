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

// Whether a file has its pages elsewhere: those of an overlay file system are the lower one's.
bool is_stacked(int fd) {
    sys::FileSystem system;
    return !sys::file_system_of(fd, &system).ok() || system.type == OVERLAYFS_SUPER_MAGIC;
}

}  // namespace

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
    bool counted = sys::count_cached(copy, &pages).ok();
    if (counted && pages.cached == 0) counted = !is_stacked(copy);
    const u64 cached = pages.cached * kPageSize;
    // Every page that was ever written is still cached and on disk: then none was dropped and read
    // again, and there would have been an error.
    if (awaited.ok() && counted && pages.dirty == 0 && pages.written_back == 0 &&
        cached >= file.disk_bytes) {
        (void)sys::change_mode(fd, record.mode & 07555);
        return done();
    }
    // A page that is gone had been written back before, or lost.
    const bool all_there = !counted || cached + kBlocksBeside >= min(file.disk_bytes, file.size);
    return is_young(file) && all_there ? done() : bad_entry(Status::unproven);
}

}  // namespace pht
