#include "written.h"

#include "descriptor.h"
#include "trust.h"

namespace pht {

namespace {

using sys::failed;

// The kernel writes back what has been dirty for half a minute; see dirty_expire_centisecs in
// Documentation/admin-guide/sysctl/vm.rst.
constexpr u64 kFirstMinutes = 600;  // seconds

// Whether every page that was ever written is still cached and on disk: then none was dropped and
// read again, and await_written() would have told of an error.
bool is_all_written(int copy, const sys::FileIdentity &file) {
    sys::CachedPages pages;
    return !failed(sys::count_cached(copy, &pages)) && pages.dirty == 0 &&
           pages.written_back == 0 && pages.cached * kPageSize >= file.disk_bytes;
}

}  // namespace

// A clock that was set back makes nothing young.
bool is_young(const sys::FileIdentity &copy) {
    const u64 now = sys::wall_seconds();
    return now >= copy.mtime && now - copy.mtime < kFirstMinutes;
}

Outcome check_written(int index, const char *name, int copy) {
    Outcome outcome;
    sys::FileIdentity record, file;
    const Descriptor fd(open_file(index, name, &record, &outcome));
    if (fd < 0) return outcome;
    if (failed(sys::identify(copy, &file))) return bad_entry(Status::damaged);
    if (failed(sys::await_written(copy))) return bad_entry(Status::damaged);
    if (is_all_written(copy, file)) {
        sys::change_mode(fd, record.mode & 07555);
        return done();
    }
    return is_young(file) ? done() : bad_entry(Status::unproven);
}

}  // namespace pht
