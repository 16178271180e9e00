#include "limits/groups.h"

#include "kernel/lines.h"

namespace pht {

namespace {

constexpr u64 kNone = sys::kUnlimited;
// Version 1 says "no limit" with the largest multiple of the page size.
constexpr u64 kNoLimit = 1ull << 62;

// Too large for a frame.
struct Work {
    char window[2048];     // of the file that is read
    char groups[2][2048];  // of the process, by version, as /proc/self/cgroup has them
    Buffer<2304> path;     // of a file of a group
};

// One of the two hierarchies that may have the memory controller.
struct Hierarchy {
    int version;
    const char *top;
    const char *limits[2];
    const char *used;
    const char *huge, *shared, *reclaimable;  // in memory.stat, groups below included
};
constexpr Hierarchy kVersion1 = {
    1,
    "/sys/fs/cgroup/memory",
    {"memory.limit_in_bytes", nullptr},
    "memory.usage_in_bytes",
    "total_rss_huge",
    "total_shmem",
    "total_inactive_file",
};
// Above memory.high nobody is killed, but all are slowed down until they are below.
constexpr Hierarchy kVersion2 = {
    2,       "/sys/fs/cgroup", {"memory.max", "memory.high"}, "memory.current", "anon_thp",
    "shmem", "inactive_file",
};

class Reader {
public:
    Reader(MemoryRoom *out, int *stat, Work *work) : out_(out), stat_(stat), work_(work) {}
    void read() {
        const Descriptor fd(sys::open("/proc/self/cgroup"));
        // Without /proc, or without control groups in the kernel.
        if (!fd.ok()) {
            if (fd.error() != ENOENT) fail(Call::open, fd.error());
            return;
        }
        Str groups[2];
        // A line that is longer than the window comes cut; its group is walked as far as it goes.
        const auto read = each_line(fd, work_->window, sizeof work_->window, [&](Str line) {
            Str path;
            const int version = parse(line, &path);
            if (!version) return true;
            char *kept = work_->groups[version - 1];
            copy(kept, path.data, path.size);
            groups[version - 1] = {kept, path.size};
            return true;
        });
        if (!read.ok()) fail(Call::read, read.error());
        // The controller is in one of them only.
        const Str &first = groups[0], &second = groups[1];
        if (first.data && walk(kVersion1, kVersion1.top, first)) return;
        // Where systemd mounts both versions, the second is below.
        const bool seen = second.data && (walk(kVersion2, kVersion2.top, second) ||
                                          walk(kVersion2, "/sys/fs/cgroup/unified", second));
        // A group that has a name and cannot be seen may have any limit.
        const Str &own = first.data ? first : second;
        if ((first.data || !seen) && own.size > 1) fail(Call::open, ENOENT);
    }

private:
    void fail(Call call, u16 error) {
        if (out_->known.ok()) out_->known = {Status::memory_limit, call, error};
    }

    // A line of cgroups(7): number, controllers, path. The version, or 0 where it has no memory.
    static int parse(Str line, Str *path) {
        size_t colons[2], found = 0;
        for (size_t at = 0; at < line.size && found < 2; ++at)
            if (line.data[at] == ':') colons[found++] = at;
        if (found < 2) return 0;
        *path = {line.data + colons[1] + 1, line.size - colons[1] - 1};
        const Str gone = str(" (deleted)");
        if (ends_with(*path, gone)) path->size -= gone.size;
        const Str controllers = {line.data + colons[0] + 1, colons[1] - colons[0] - 1};
        if (controllers.size == 0) return 2;
        for (size_t at = 0; at < controllers.size;) {
            size_t end = at;
            while (end < controllers.size && controllers.data[end] != ',') ++end;
            if (equal({controllers.data + at, end - at}, str("memory"))) return 1;
            at = end + 1;
        }
        return 0;
    }

    // A file of the group, or the group itself.
    const char *path(const char *top, Str group, const char *name) {
        work_->path.size = 0;
        return work_->path.add(top).add(group).add("/").add(name).data;
    }

    static size_t step(Str group, size_t from) {  // the end of the name behind the slash at `from`
        size_t end = from + 1;
        while (end < group.size && group.data[end] != '/') ++end;
        return end;
    }

    // All levels from the mount's root down to the process's group. Whether any of it is there.
    bool walk(const Hierarchy &kind, const char *top, Str group) {
        // In a container its own group may be mounted at the top, and the way to it be another
        // one's: then what is left of the path begins behind what is not there. `..` is outside.
        while (group.size > 1) {
            const size_t end = step(group, 0);
            const bool outside = equal({group.data, end}, str("/.."));
            if (!outside) {
                const Descriptor fd(
                    sys::open_at(AT_FDCWD, path(top, {group.data, end}, ""), O_PATH | O_DIRECTORY));
                if (fd.ok()) break;
            }
            group = {group.data + end, group.size - end};
        }
        if (group.size <= 1) group = {"", 0};
        bool seen = level(kind, top, {"", 0}, group.size == 0) || is_cgroup(top);
        for (size_t at = 0; at < group.size;) {
            at = step(group, at);
            seen = level(kind, top, {group.data, at}, at == group.size) || seen;
        }
        return seen;
    }

    static bool is_cgroup(const char *top) {
        const auto type = sys::file_system(top);
        return type.ok() &&
               (type.value() == CGROUP_SUPER_MAGIC || type.value() == CGROUP2_SUPER_MAGIC);
    }

    // A file with one number, or `max`: kNone. Whether it is there.
    bool number(const char *file, u64 *value) {
        const Descriptor fd(sys::open(file));
        *value = kNone;
        if (!fd.ok()) {
            // ENODEV: the group was removed this moment.
            const bool absent =
                fd.error() == ENOENT || fd.error() == ENODEV || fd.error() == ENOTDIR;
            if (!absent) fail(Call::open, fd.error());
            return false;
        }
        const auto got = sys::read(fd, work_->window, sizeof work_->window);
        if (!got.ok()) {
            if (got.error() != ENODEV) fail(Call::read, got.error());
            return false;
        }
        const Str text = {work_->window, got.value()};
        if (starts_with(text, str("max"))) return true;
        Cursor cursor{text.data, text.data + text.size};
        const u64 found = cursor.number(10);
        if (!cursor.ok) fail(Call::read, EINVAL);
        if (cursor.ok && found < kNoLimit) *value = found;
        return true;
    }

    bool level(const Hierarchy &kind, const char *top, Str group, bool own) {
        u64 limit = kNone;
        bool there = false;
        for (const char *name : kind.limits) {
            u64 value = kNone;
            if (!name || !number(path(top, group, name), &value)) continue;
            there = true;
            limit = min(limit, value);
        }
        if (there && !out_->version) out_->version = kind.version;
        // Version 1 tells there what the levels above allow, those that are not mounted included.
        if (there && (limit != kNone || (own && kind.version == 1)))
            measure(kind, top, group, limit);
        return there;
    }

    void measure(const Hierarchy &kind, const char *top, Str group, u64 limit) {
        const auto opened = sys::open(path(top, group, "memory.stat"));
        if (!opened.ok()) {
            fail(Call::open, opened.error());
            return;
        }
        const int fd = opened.value();
        u64 huge = 0, shared = 0, reclaimable = 0;
        const auto note = [&](Str line) {
            Cursor cursor{line.data, line.data + line.size};
            while (cursor.at < cursor.end && *cursor.at != ' ') ++cursor.at;
            const Str name = {line.data, static_cast<size_t>(cursor.at - line.data)};
            cursor.blanks();
            const u64 value = cursor.number(10);
            if (!cursor.ok) return true;
            if (equal(name, str(kind.huge))) huge = value;
            if (equal(name, str(kind.shared))) shared = value;
            if (equal(name, str(kind.reclaimable))) reclaimable = value;
            if (equal(name, str("hierarchical_memory_limit")) && value < kNoLimit)
                limit = min(limit, value);
            return true;
        };
        const auto read = each_line(fd, work_->window, sizeof work_->window, note);
        if (!read.ok()) fail(Call::read, read.error());
        if (limit != kNone) {
            u64 used = kNone;
            if (!number(path(top, group, kind.used), &used)) fail(Call::open, ENOENT);
            used = less(used, reclaimable);
            fold(kind, group, limit, used, huge + shared);
        }
        if (limit != kNone && stat_ && *stat_ < 0)
            *stat_ = fd;
        else
            sys::close(fd);
    }

    void fold(const Hierarchy &kind, Str group, u64 limit, u64 used, u64 taken) {
        out_->free = min(out_->free, less(limit, used));
        out_->together = min(out_->together, less(limit / kForAll, taken));
        if (limit >= out_->limit) return;
        out_->limit = limit;
        out_->used = used;
        out_->version = kind.version;
        out_->group = {};
        out_->group.add(group.size ? group : str("/"));
    }

    MemoryRoom *const out_;
    int *const stat_;
    Work *const work_;
};

}  // namespace

void read_groups(MemoryRoom *out, int *stat) {
    Room<0> room;
    if (auto *const work = reinterpret_cast<Work *>(room.take(sizeof(Work))))
        Reader(out, stat, work).read();
    else
        out->known = {Status::memory_limit, Call::mmap, ENOMEM};
}

}  // namespace pht
