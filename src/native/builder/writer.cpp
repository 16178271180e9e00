#include "builder/writer.h"

#include "builder/distrust.h"
#include "builder/path.h"
#include "store/trust.h"

namespace pht {

namespace {

constexpr int kReopenings = 3;  // of a store that others remove meanwhile
// The descriptors that a forked child has to close, and how often this process was forked from
// another: what a builder holds is its own only while that number stays.
constexpr size_t kMostHeld = 64;
int held[kMostHeld];  // descriptor + 1
int roots[8];         // of them, those of stores
u64 generation;

template <size_t N> void exchange(int (&slots)[N], int from, int to) {
    for (int &slot : slots) {
        int expected = from;
        if (__atomic_compare_exchange_n(&slot, &expected, to, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
            return;
    }
}

int hold(int fd) {
    if (fd < 0) return -1;
    exchange(held, 0, fd + 1);
    return fd;
}

void let_go(int *fd) {
    if (*fd < 0) return;
    exchange(held, *fd + 1, 0);
    sys::close(*fd);
    *fd = -1;
}

// Where a store was that was open when the process was about to be forked; empty: none was.
char forked_root[kPathLimit];

// The path of an open file into `room`; empty where /proc does not tell.
void find_path(int fd, char (&room)[kPathLimit]) {
    Buffer<40> link;
    link.add("/proc/self/fd/").add_decimal(static_cast<u64>(fd));
    const auto size = sys::read_link(link.data, room, sizeof room - 1);
    room[size.ok() ? size.value() : 0] = 0;
}

// Closes whatever is open below a store.
void close_below(const char *root) {
    auto *const path = static_cast<char(*)[kPathLimit]>(map_memory(kPathLimit));
    if (!path) return;
    const Descriptor listed(sys::open_at(AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY));
    Names names;
    const size_t front = length(root);
    if (listed.ok() && names.read(listed).ok()) {
        for (const char *name; names.next(&name);) {
            Cursor digits{name, name + length(name)};
            const auto fd = static_cast<int>(digits.number(10));
            if (!digits.ok || fd == listed) continue;
            find_path(fd, *path);
            if (starts_with(str(*path), {root, front}) && (*path)[front] == '/') sys::close(fd);
        }
    }
    unmap_memory(path, kPathLimit);
}

Trouble told(const Outcome &outcome, const char *root) {
    if (outcome.status == Status::untrusted) return explain(root);
    if (outcome.status == Status::no_store && outcome.error == ENOTDIR) {
        Trouble out = explain(root);
        out.kind = Trouble::Kind::io;
        out.error = ENOTDIR;
        return out;
    }
    if (outcome.status == Status::no_store && (outcome.buildable || outcome.error == ENOENT))
        return trouble(Trouble::Kind::gone, str(root), " is not there");
    const Error error = {outcome.error ? outcome.error : u16{EACCES}};
    return failed_call(outcome.call == Call::access ? "access" : "open", str(root), error);
}

// Opens a directory below a trusted one, or makes it; it must be ours. The descriptor, or -1.
int enter(int parent, const char *name, bool make, u32 mode, Trouble *out) {
    auto fd = open_plain_directory(parent, name);
    if (fd.error() == ENOENT) {
        if (!make) {
            *out = trouble(Trouble::Kind::gone, str(name), " is not there");
            return -1;
        }
        const auto made = make_plain_directory(parent, name, mode);
        if (!made.ok() && made.error() != EEXIST) {
            *out = failed_call("mkdir", str(name), made);
            return -1;
        }
        fd = open_plain_directory(parent, name);
    }
    if (!fd.ok()) {
        *out = failed_call("open", str(name), fd);
        if (fd.error() == ENOTDIR || fd.error() == ELOOP)
            out->text.add(": it is a file or a symbolic link");
        return -1;
    }
    const int directory = fd.value();
    sys::FileIdentity file;
    const auto result = sys::identify(directory, &file);
    if (!result.ok()) {
        *out = failed_call("statx", str(name), result);
    } else if (!trusted_directory(file, false)) {
        *out = trouble(Trouble::Kind::untrusted, str(name),
                       " belongs to somebody else, or is writable by others");
    } else {
        return directory;
    }
    sys::close(directory);
    return -1;
}

// Opens a store's root, and makes what is missing of the way there if told so. The way that is
// there is looked at before, lest root leaves its directories in somebody else's home.
int enter_root(const StoreSpec &spec, bool make, Trouble *out) {
    Path there(spec.root);
    if (!there.ok()) {
        *out = spec.root[0] == '/' && length(spec.root) < kPathLimit
                   ? failed_call("mmap", Error{ENOMEM})
                   : trouble(Trouble::Kind::untrusted, str(spec.root), " is no absolute path");
        return -1;
    }
    sys::FileIdentity file;
    while (there.size() > 1 && sys::identify_path(there.text(), &file).error() == ENOENT)
        there.cut(there.parent());
    const size_t whole = length(spec.root);
    const bool above = there.size() < whole;
    Outcome outcome;
    int fd = open_root(there.text(), &outcome, above);
    if (fd < 0) {
        *out = told(outcome, there.text());
        return -1;
    }
    if (!is_somebody() || (make && !is_for_user(fd))) {
        *out = is_somebody() ? trouble(Trouble::Kind::untrusted, str(there.text()),
                                       " belongs to root, and is root's to fill")
                             : explain(spec.root);
        sys::close(fd);
        return -1;
    }
    if (above && !make) {
        *out = trouble(Trouble::Kind::gone, str(spec.root), " is not there");
        sys::close(fd);
        return -1;
    }
    for (size_t at = there.size(); at < whole && fd >= 0;) {
        while (spec.root[at] == '/') ++at;
        size_t end = at;
        while (end < whole && spec.root[end] != '/') ++end;
        if (end == at) break;
        Path step(spec.root + at - 1);  // with a slash in front
        step.cut(end - at + 1);
        if (!step.ok()) {
            *out = failed_call("mmap", Error{ENOMEM});
            sys::close(fd);
            return -1;
        }
        const u32 mode = end < whole ? (spec.for_everyone ? 0755u : 0700u) : spec.directory_mode();
        const int next = enter(fd, step.text() + 1, true, mode, out);
        sys::close(fd);
        fd = next;
        at = end;
    }
    return fd;
}

}  // namespace

void Written::take(ErrorOr<int> fd) {
    fd_ = fd.ok() ? hold(fd.value()) : -1;
}

Written::~Written() {
    let_go(&fd_);
}

void StoreWriter::prepare_fork() {
    forked_root[0] = 0;
    for (const int &slot : roots) {
        const int root = __atomic_load_n(&slot, __ATOMIC_RELAXED);
        if (root) return find_path(root - 1, forked_root);
    }
}

// The kernel copies the descriptors first and the memory a moment later. What another thread closed
// in between is open here, and nothing in memory says so: hence the look at what is open.
void StoreWriter::forget_in_child() {
    ++generation;
    if (forked_root[0]) close_below(forked_root);
    for (int &slot : roots) slot = 0;
    for (int &slot : held) {
        const int fd = __atomic_exchange_n(&slot, 0, __ATOMIC_RELAXED);
        if (fd) sys::close(fd - 1);
    }
}

void StoreWriter::close() {
    if (generation_ != generation) return;  // closed in the child that this is, long ago
    int *const all[] = {&lock_, &tmp_, &objects_, &index_, &version_, &root_};
    exchange(roots, root_ + 1, 0);
    for (int *fd : all) let_go(fd);
}

Trouble StoreWriter::open(bool make) {
    close();
    made_ = make;
    generation_ = generation;
    Trouble out;
    root_ = hold(enter_root(spec_, make, &out));
    if (root_ < 0) return out;
    exchange(roots, 0, root_ + 1);
    const struct {
        int *fd, *parent;
        const char *name;
    } steps[] = {{&version_, &root_, "v1"},
                 {&index_, &version_, "index"},
                 {&objects_, &version_, "objects"},
                 {&tmp_, &version_, "tmp"}};
    for (const auto &step : steps) {
        *step.fd = hold(enter(*step.parent, step.name, make, spec_.directory_mode(), &out));
        if (*step.fd >= 0) continue;
        if (out.kind == Trouble::Kind::untrusted) out = explain_below(spec_.root, step.name);
        return out;
    }
    return out;
}

// The file is of this store's owner and for nobody else: who may not open it cannot keep others
// waiting.
Trouble StoreWriter::open_lock(int *out) const {
    const auto fd = sys::create_at(version_, "lock", O_RDWR | O_NONBLOCK, 0600);
    if (!fd.ok()) return failed_call("open", str("v1/lock"), fd);
    *out = fd.value();
    sys::FileIdentity file;
    auto result = sys::identify(*out, &file);
    if (result.ok() && (file.mode & 07777) != 0600) result = sys::change_mode(*out, 0600);
    Trouble problem;
    if (!result.ok())
        problem = failed_call("fchmod", str("v1/lock"), result);
    else if ((file.mode & S_IFMT) != S_IFREG)
        problem = trouble(Trouble::Kind::untrusted, "v1/lock is no plain file");
    if (problem.ok()) return problem;
    sys::close(*out);
    *out = -1;
    return problem;
}

// Whether what is locked is still what has the name: the store may have been removed and made anew
// while this process waited.
bool StoreWriter::is_still_there() const {
    sys::FileIdentity ours, named;
    const auto same = [&] {
        return ours.inode == named.inode && ours.dev_major == named.dev_major &&
               ours.dev_minor == named.dev_minor;
    };
    if (!sys::identify(lock_, &ours).ok() ||
        !sys::identify_at(version_, "lock", AT_SYMLINK_NOFOLLOW, &named).ok() || !same())
        return false;
    if (!sys::identify(version_, &ours).ok() ||
        !sys::identify_at(root_, "v1", AT_SYMLINK_NOFOLLOW, &named).ok() || !same())
        return false;
    // Through the links on the way to it, if there are any.
    return sys::identify(root_, &ours).ok() &&
           sys::identify_at(AT_FDCWD, spec_.root, 0, &named).ok() && same();
}

Trouble StoreWriter::lock(unsigned tries, bool *waited, bool sweep) {
    *waited = false;
    for (int i = 0; i < kReopenings; ++i) {
        int fd = -1;
        Trouble problem = open_lock(&fd);
        if (!problem.ok()) return problem;
        lock_ = hold(fd);
        auto result = sys::try_lock(lock_);
        for (unsigned n = 0; (result.error() == EAGAIN || result.error() == EACCES) && n < tries;
             ++n) {
            *waited = true;
            if (sys::pause(kLockPause).error() == EINTR) {
                let_go(&lock_);
                return trouble(Trouble::Kind::interrupted, str(spec_.root),
                               ": a signal came while another process was writing to it");
            }
            result = sys::try_lock(lock_);
        }
        if (!result.ok()) {
            let_go(&lock_);
            if (result.error() == EAGAIN || result.error() == EACCES)
                return trouble(Trouble::Kind::busy, str(spec_.root),
                               " is being written by another process");
            return failed_call("fcntl(F_OFD_SETLK)", str("v1/lock"), result);
        }
        if (is_still_there()) {
            if (sweep) this->sweep();
            return {};
        }
        problem = open(made_);
        if (!problem.ok()) return problem;
    }
    return trouble(Trouble::Kind::gone, str(spec_.root), " is removed again and again");
}

void StoreWriter::unlock() {
    if (generation_ != generation || lock_ < 0) return;
    sys::unlock(lock_);
    let_go(&lock_);
}

u64 StoreWriter::sweep() const {
    Names names;
    u64 freed = 0;
    if (!names.read(tmp_).ok()) return 0;
    for (const char *name; names.next(&name);) {
        const u64 bytes = disk_bytes(tmp_, name);
        if (remove_tree(tmp_, name).ok()) freed += bytes;
    }
    return freed;
}

Trouble StoreWriter::write_file(int directory, const char *name, const void *data, size_t size,
                                u32 mode, bool durable, u64 time) const {
    Buffer<48> temporary;
    temporary.add_decimal(sys::process_id()).add("-file");
    const auto created = sys::create_at(tmp_, temporary.data, O_RDWR | O_EXCL, 0600);
    if (!created.ok()) return failed_call("open", str("v1/tmp"), created);
    const char *call = "write";
    ErrorOr<void> result;
    {
        const Written fd(created);
        const auto *at = static_cast<const char *>(data);
        while (size > 0 && result.ok()) {
            const auto got =
                sys::uninterrupted([&] { return sys::write(fd, at, size); }).nonzero(EIO);
            if (!got.ok()) {
                result = Error(got);
                continue;
            }
            at += got.value();
            size -= got.value();
        }
        const auto then = [&](const char *next, auto step) {
            if (!result.ok()) return;
            call = next;
            result = step();
        };
        then("fchmod", [&] { return sys::change_mode(fd, mode); });
        if (time) then("utimensat", [&] { return sys::set_times(fd, time); });
        if (durable) then("fsync", [&] { return sys::sync(fd); });
    }
    if (result.ok()) {
        call = "rename";
        result = sys::rename_at(tmp_, temporary.data, directory, name);
        if (result.error() == EISDIR) {
            (void)remove_tree(directory, name);
            result = sys::rename_at(tmp_, temporary.data, directory, name);
        }
    }
    if (result.ok() && durable) {
        call = "fsync";
        result = sys::sync(directory);
    }
    if (result.ok()) return {};
    (void)remove_tree(tmp_, temporary.data);
    return failed_call(call, str(name), result);
}

Trouble StoreWriter::remove_all() const {
    auto result = remove_tree(version_, "index");
    if (result.ok()) result = remove_tree(root_, "v1");
    if (!result.ok()) return failed_call("removing", str(spec_.root), result);
    const Path root(spec_.root);
    if (!root.ok()) return {};
    Path parent(spec_.root);
    parent.cut(root.parent());
    if (!parent.ok()) return {};
    Outcome outcome;
    const Descriptor above(open_root(parent.text(), &outcome, true));
    // Something else may be in it, or the directory above not ours.
    if (above.ok()) (void)sys::remove_directory_at(above, basename(str(spec_.root)).data);
    return {};
}

bool StoreWriter::is_of_this_process() const {
    return generation_ == generation;
}

}  // namespace pht
