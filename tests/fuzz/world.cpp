#include "world.h"

#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "kernel/sys.h"

namespace fuzz {

World world;

namespace {

struct Open {
    std::string name;
    size_t at = 0;
    bool open = false;
};
std::vector<Open> opened;
constexpr long kFirst = 1000;  // descriptor: never one of the fuzzer's own
unsigned reads;

Open *behind(long fd) {
    const long at = fd - kFirst;
    CHECK(at >= 0 && at < static_cast<long>(opened.size()) && opened[at].open);
    return &opened[at];
}

// Absolute, and without a step that says nothing.
std::string name_of(long directory, const char *path) {
    std::string name = path;
    if (name.empty() || name == ".") return behind(directory)->name;
    if (name[0] != '/') name = behind(directory)->name + "/" + name;
    std::string whole;
    for (const char c : name)
        if (c != '/' || whole.empty() || whole.back() != '/') whole += c;
    while (whole.size() > 1 && whole.back() == '/') whole.pop_back();
    return whole;
}

long open_file(long directory, const char *path, long flags) {
    const std::string name = name_of(directory, path);
    const auto found = world.files.find(name);
    if (found == world.files.end()) return -ENOENT;
    if (found->second.error) return -found->second.error;
    if ((flags & O_DIRECTORY) && !S_ISDIR(found->second.mode)) return -ENOTDIR;
    CHECK((flags & O_ACCMODE) == O_RDONLY && (flags & O_CLOEXEC));
    opened.push_back({name, 0, true});
    return kFirst + static_cast<long>(opened.size()) - 1;
}

bool fails() {
    return world.fail_after && ++reads > world.fail_after;
}

long read_at(const Open &file, char *to, size_t size, size_t at, size_t most) {
    const Node &node = world.files.at(file.name);
    if (S_ISDIR(node.mode)) return -EISDIR;
    if (fails()) return -EIO;
    if (node.real >= 0) return pread(node.real, to, size, static_cast<off_t>(at));
    if (at >= node.data.size()) return 0;
    const size_t length = std::min({size, most, node.data.size() - at});
    memcpy(to, node.data.data() + at, length);
    return static_cast<long>(length);
}

// As statx(2) has it; see identify_at() of the core.
long tell(const std::string &name, void *out) {
    const auto found = world.files.find(name);
    if (found == world.files.end()) return -ENOENT;
    const Node &node = found->second;
    struct statx told = {};
    told.stx_mode = static_cast<uint16_t>(node.mode);
    told.stx_uid = node.owner;
    told.stx_ino = node.inode;
    told.stx_size = node.real >= 0 ? node.size : node.data.size();
    told.stx_blocks = (told.stx_size + 511) / 512;
    told.stx_mtime.tv_sec = static_cast<int64_t>(node.mtime);
    told.stx_ctime.tv_sec = static_cast<int64_t>(node.ctime);
    told.stx_dev_major = 8;
    told.stx_dev_minor = 1;
    memcpy(out, &told, sizeof told);
    return 0;
}

// As lseek(2) with SEEK_DATA and SEEK_HOLE.
long find_hole(const Node &node, uint64_t offset, long whence) {
    if (node.real < 0 || (whence != SEEK_DATA && whence != SEEK_HOLE)) return -EINVAL;
    if (offset >= node.size) return -ENXIO;
    for (const auto &[start, end] : node.written) {
        if (end <= offset) continue;
        if (whence == SEEK_DATA) return static_cast<long>(std::max(start, offset));
        if (start > offset) break;
        offset = end;
    }
    if (whence == SEEK_DATA) return -ENXIO;
    return static_cast<long>(std::min(offset, node.size));
}

int real_of(long fd) {
    return world.files.at(behind(fd)->name).real;
}

long map(long address, long size, long protection, long flags, long fd, long offset) {
    int real = -1;
    if (!(flags & MAP_ANONYMOUS)) {
        real = real_of(fd);
        if (real < 0) return -ENODEV;
    }
    void *const got =
        mmap(reinterpret_cast<void *>(address), static_cast<size_t>(size),
             static_cast<int>(protection) & ~PROT_EXEC, static_cast<int>(flags), real, offset);
    if (got == MAP_FAILED) return -errno;
    if (real >= 0 && (protection & PROT_EXEC))
        world.executable[reinterpret_cast<uint64_t>(got)] = {static_cast<uint64_t>(offset),
                                                             static_cast<uint64_t>(size)};
    return reinterpret_cast<long>(got);
}

long unmap(long address, long size) {
    world.executable.erase(static_cast<uint64_t>(address));
    return munmap(reinterpret_cast<void *>(address), static_cast<size_t>(size)) ? -errno : 0;
}

}  // namespace

Node &World::add(const std::string &name, const std::string &data) {
    Node &node = files[name];
    node.data = data;
    return node;
}

Node &World::add_directory(const std::string &name) {
    Node &node = files[name];
    node.mode = S_IFDIR | 0755;
    return node;
}

size_t World::open_count() const {
    return static_cast<size_t>(
        std::count_if(opened.begin(), opened.end(), [](const Open &one) { return one.open; }));
}

void fresh() {
    world = {};
    opened.clear();
    reads = 0;
}

}  // namespace fuzz

namespace pht::sys {

using namespace fuzz;

long simulated(long number, long a, long b, long c, long d, long e, long f) {
    const auto text = [](long at) { return reinterpret_cast<const char *>(at); };
    switch (number) {
        case __NR_openat:
            return open_file(a, text(b), c);
        case __NR_close:
            behind(a)->open = false;
            return 0;
        case __NR_read: {
            Open *const file = behind(a);
            const long got = read_at(*file, reinterpret_cast<char *>(b), static_cast<size_t>(c),
                                     file->at, world.step);
            if (got > 0) file->at += static_cast<size_t>(got);
            return got;
        }
        case __NR_pread64:
            return read_at(*behind(a), reinterpret_cast<char *>(b), static_cast<size_t>(c),
                           static_cast<size_t>(d), world.step);
        case __NR_lseek:
            return find_hole(world.files.at(behind(a)->name), static_cast<u64>(b), c);
        case __NR_statx:
            return tell(name_of(a, text(b)), reinterpret_cast<void *>(e));
        case __NR_statfs:
        case __NR_fstatfs: {
            if (number == __NR_statfs && !world.files.count(name_of(0, text(a)))) return -ENOENT;
            FileSystem system;
            system.type = world.file_system;
            memcpy(reinterpret_cast<void *>(b), &system, sizeof system);
            return 0;
        }
        case __NR_mmap:
            return map(a, b, c, d, e, f);
        case __NR_munmap:
            return unmap(a, b);
        case __NR_madvise:
            return ::madvise(reinterpret_cast<void *>(a), static_cast<size_t>(b),
                             static_cast<int>(c))
                       ? -errno
                       : 0;
        case __NR_clock_gettime: {
            const long time[2] = {static_cast<long>(world.now), 0};
            memcpy(reinterpret_cast<void *>(b), time, sizeof time);
            return 0;
        }
        case __NR_getresuid:
            for (const long at : {a, b, c}) memset(reinterpret_cast<void *>(at), 0, sizeof(u32));
            return 0;
        case __NR_prctl:
            return a == PR_GET_SECCOMP ? world.seccomp : -EINVAL;
        case __NR_move_pages:
            if (world.node < -1) return -ENOSYS;
            for (long i = 0; i < b; ++i) reinterpret_cast<int *>(e)[i] = world.node;
            return 0;
        case __NR_flock:
        case __NR_faccessat:
        case __NR_utimensat:
        case __NR_fchmod:
        case __NR_uname:
        case __NR_prlimit64:
        case __NR_sync_file_range:
        case __NR_nanosleep:
            return 0;
        case __NR_ioctl:
            return -ENOTTY;
        case __NR_cachestat:
        case __NR_process_vm_readv:
        case __NR_getpid:
            return -ENOSYS;
        default:
            fprintf(stderr, "system call %ld is not expected\n", number);
            abort();
    }
}

}  // namespace pht::sys
