#include "world.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include "check.h"
#include "kernel/sys.h"

namespace fuzz {

World world;

namespace {

using pht::kHugeSize;
using pht::kPageSize;

struct Open {
    const Node *node;
    size_t at;
    bool open;
};
// No number is used twice: who asks for one that was closed is found.
Open opened[1 << 16];
size_t opened_count;
constexpr long kFirst = 1000;  // descriptor: never one of the fuzzer's own
unsigned reads;

Open *behind(long fd) {
    const long at = fd - kFirst;
    CHECK(at >= 0 && at < static_cast<long>(opened_count) && opened[at].open);
    return &opened[at];
}

// A name on the way to be absolute, and without a step that says nothing.
struct Name {
    char text[1 << 14];
    size_t size;

    void add(std::string_view more) {
        CHECK(more.size() <= sizeof text - size);
        char last = size ? text[size - 1] : '\0';
        const char *const from = more.data();
        for (size_t i = 0; i < more.size(); ++i) {
            if (from[i] == '/' && last == '/') continue;
            text[size++] = last = from[i];
        }
    }
};

// Valid until the next.
std::string_view name_of(long directory, const char *path) {
    static Name whole;
    whole.size = 0;
    const std::string_view name = path;
    if (name.empty() || name == ".") return behind(directory)->node->name;
    if (name[0] != '/') {
        whole.add(behind(directory)->node->name);
        whole.add("/");
    }
    whole.add(name);
    while (whole.size > 1 && whole.text[whole.size - 1] == '/') --whole.size;
    return {whole.text, whole.size};
}

// From the end, where names differ.
bool is_same(std::string_view a, std::string_view b) {
    if (a.size() != b.size()) return false;
    const char *const left = a.data(), *const right = b.data();
    for (size_t i = a.size(); i; --i)
        if (left[i - 1] != right[i - 1]) return false;
    return true;
}

Node *find(std::string_view name) {
    Node *const nodes = world.nodes.data();
    for (size_t i = 0; i < world.node_count; ++i)
        if (is_same(nodes[i].name, name)) return &nodes[i];
    return nullptr;
}

long open_file(long directory, const char *path, long flags) {
    const Node *const found = find(name_of(directory, path));
    if (!found) return -ENOENT;
    if (found->error) return -found->error;
    if ((flags & O_DIRECTORY) && !S_ISDIR(found->mode)) return -ENOTDIR;
    CHECK((flags & O_ACCMODE) == O_RDONLY && (flags & O_CLOEXEC));
    if (opened_count == std::size(opened)) return -EMFILE;
    opened[opened_count] = {found, 0, true};
    return kFirst + static_cast<long>(opened_count++);
}

bool fails() {
    return world.fail_after && ++reads > world.fail_after;
}

uint64_t size_of(const Node &node) {
    return node.sparse ? node.sparse->size : node.data.size();
}

long read_node(const Node &node, char *to, size_t size, size_t at, size_t most) {
    if (S_ISDIR(node.mode)) return -EISDIR;
    if (fails()) return -EIO;
    if (at >= size_of(node)) return 0;
    const size_t length = std::min({size, most, size_of(node) - at});
    if (node.sparse)
        node.sparse->read(to, length, at);
    else
        memcpy(to, node.data.data() + at, length);
    return static_cast<long>(length);
}

// As statx(2) has it; see identify_at() of the core.
long tell(std::string_view name, void *out) {
    const Node *const node = find(name);
    if (!node) return -ENOENT;
    struct statx told = {};
    told.stx_mode = static_cast<uint16_t>(node->mode);
    told.stx_uid = node->owner;
    told.stx_ino = node->inode;
    told.stx_size = size_of(*node);
    told.stx_blocks = (told.stx_size + 511) / 512;
    told.stx_mtime.tv_sec = static_cast<int64_t>(node->mtime);
    told.stx_ctime.tv_sec = static_cast<int64_t>(node->ctime);
    told.stx_dev_major = 8;
    told.stx_dev_minor = 1;
    memcpy(out, &told, sizeof told);
    return 0;
}

// As lseek(2) with SEEK_DATA and SEEK_HOLE.
long find_hole(const Sparse *file, uint64_t offset, long whence) {
    if (!file || (whence != SEEK_DATA && whence != SEEK_HOLE)) return -EINVAL;
    if (offset >= file->size) return -ENXIO;
    for (size_t i = 0; i < file->written_count; ++i) {
        const auto [start, end] = file->written[i];
        if (end <= offset) continue;
        if (whence == SEEK_DATA) return static_cast<long>(std::max(start, offset));
        if (start > offset) break;
        offset = end;
    }
    if (whence == SEEK_DATA) return -ENXIO;
    return static_cast<long>(std::min(offset, file->size));
}

// Where mappings are made: memory that is there, zero, and forbidden but for pages that
// MADV_POPULATE_READ was asked for, so that nothing is read without having been.
constexpr uint64_t kPlace = 16 * kHugeSize;
uint64_t places;
Sparse::Span populated[16];
size_t populated_count;

uint64_t place(size_t i) {
    if (!places) {
        const size_t size = (std::size(world.mapped) + 1) * kPlace;
        void *const got = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK(got != MAP_FAILED);
        __asan_poison_memory_region(got, size);
        places = pht::round_up(reinterpret_cast<uint64_t>(got), kHugeSize);
    }
    return places + i * kPlace;
}

// Puts a file's pieces where its mapping has them, or zeros in their place.
void fill(const Mapped &mapping, bool in) {
    for (const auto &[at, bytes] : mapping.file->pieces) {
        const uint64_t stop = mapping.offset + (mapping.end - mapping.start);
        for (uint64_t i = at; i < at + bytes.size() && i < stop; ++i) {
            if (i < mapping.offset) continue;
            auto *const to = reinterpret_cast<char *>(mapping.start + (i - mapping.offset));
            *to = in ? bytes[i - at] : '\0';
        }
    }
}

void forbid(uint64_t start, uint64_t end) {
    if (start < end) __asan_poison_memory_region(reinterpret_cast<void *>(start), end - start);
}

void allow(uint64_t start, uint64_t end) {
    __asan_unpoison_memory_region(reinterpret_cast<void *>(start), end - start);
    CHECK(populated_count < std::size(populated));
    populated[populated_count++] = {start, end};
}

Mapped *find_mapping(uint64_t start, uint64_t end) {
    for (Mapped &one : world.mapped)
        if (one.start <= start && end <= one.end && one.start < one.end) return &one;
    return nullptr;
}

long map(uint64_t address, uint64_t size, long protection, long flags, long fd, uint64_t offset) {
    const Sparse *const file = flags & MAP_ANONYMOUS ? nullptr : behind(fd)->node->sparse;
    if (!file && !(flags & MAP_ANONYMOUS)) return -ENODEV;
    CHECK(size && size % kPageSize == 0 && offset % kPageSize == 0);
    Mapped *found = nullptr;
    if (flags & MAP_FIXED) {
        // Over what was reserved for it, all of which is used by those who ask.
        found = find_mapping(address, address + size);
        CHECK(found && !found->file && found->start == address && found->end == address + size);
    } else {
        size_t i = 0;
        while (i < world.mapped.size() && world.mapped[i].end) ++i;
        if (i == world.mapped.size() || size > kPlace - kHugeSize) return -ENOMEM;
        found = &world.mapped[i];
        address = place(i) + (file && world.aligned ? 0 : 3 * kPageSize);
    }
    *found = {address, address + size, file, offset, (protection & PROT_EXEC) != 0};
    if (file) fill(*found, true);
    return static_cast<long>(address);
}

long unmap(uint64_t address, uint64_t size) {
    Mapped *const found = find_mapping(address, address + size);
    CHECK(found && size % kPageSize == 0);
    if (found->start == address && found->end == address + size) {
        if (found->file) {
            fill(*found, false);
            for (size_t i = 0; i < populated_count; ++i)
                forbid(std::max(address, populated[i].start),
                       std::min(address + size, populated[i].end));
            if (world.mapped_count() == 1) populated_count = 0;
        }
        *found = {};
    } else {
        // Only of a reservation a part is given back.
        CHECK(!found->file && (found->start == address || found->end == address + size));
        (found->start == address ? found->start : found->end) =
            found->start == address ? address + size : address;
    }
    return 0;
}

long advise(uint64_t address, uint64_t size, long advice) {
    if (advice != MADV_POPULATE_READ) return 0;
    const Mapped *const found = find_mapping(address, address + size);
    CHECK(found && found->file && address % kPageSize == 0);
    // Behind the end of the file: a SIGBUS for whoever touched it.
    const uint64_t end = pht::round_up(found->file->size, kPageSize);
    if (found->offset + (address + size - found->start) > end) return -EFAULT;
    allow(address, address + size);
    return 0;
}

}  // namespace

void Sparse::read(char *to, uint64_t length, uint64_t offset) const {
    memset(to, 0, length);
    for (const auto &[at, bytes] : pieces) {
        const uint64_t start = std::max(at, offset);
        const uint64_t end = std::min(at + bytes.size(), offset + length);
        if (start < end) memcpy(to + (start - offset), bytes.data() + (start - at), end - start);
    }
}

Node &World::add(std::string_view name, std::string_view data) {
    Node *node = find(name);
    if (!node) {
        CHECK(node_count < nodes.size());
        node = &nodes[node_count++];
    }
    *node = {};
    node->name = name;
    node->data = data;
    return *node;
}

Node &World::add_directory(std::string_view name) {
    Node &node = add(name, {});
    node.mode = S_IFDIR | 0755;
    return node;
}

size_t World::open_count() const {
    return static_cast<size_t>(
        std::count_if(opened, opened + opened_count, [](const Open &one) { return one.open; }));
}

size_t World::mapped_count() const {
    return static_cast<size_t>(std::count_if(mapped.begin(), mapped.end(),
                                             [](const Mapped &one) { return one.end != 0; }));
}

const Mapped *World::find_mapped(uint64_t start) const {
    for (const Mapped &one : mapped)
        if (one.end && one.start == start) return &one;
    return nullptr;
}

void fresh() {
    const size_t used = world.node_count;
    for (size_t i = 0; i < used; ++i) world.nodes[i] = {};
    static const World kEmpty;
    // All but the nodes, which are most of it.
    world.node_count = 0;
    world.step = kEmpty.step;
    world.fail_after = kEmpty.fail_after;
    world.file_system = kEmpty.file_system;
    world.now = kEmpty.now;
    world.seccomp = kEmpty.seccomp;
    world.node = kEmpty.node;
    world.aligned = kEmpty.aligned;
    world.mapped = kEmpty.mapped;
    opened_count = 0;
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
            const long got = read_node(*file->node, reinterpret_cast<char *>(b),
                                       static_cast<size_t>(c), file->at, world.step);
            if (got > 0) file->at += static_cast<size_t>(got);
            return got;
        }
        case __NR_pread64:
            return read_node(*behind(a)->node, reinterpret_cast<char *>(b), static_cast<size_t>(c),
                             static_cast<size_t>(d), world.step);
        case __NR_lseek:
            return find_hole(behind(a)->node->sparse, static_cast<u64>(b), c);
        case __NR_statx:
            return tell(name_of(a, text(b)), reinterpret_cast<void *>(e));
        case __NR_statfs:
        case __NR_fstatfs: {
            if (number == __NR_statfs && !find(name_of(0, text(a)))) return -ENOENT;
            FileSystem system;
            system.type = world.file_system;
            memcpy(reinterpret_cast<void *>(b), &system, sizeof system);
            return 0;
        }
        case __NR_mmap:
            return map(static_cast<u64>(a), static_cast<u64>(b), c, d, e, static_cast<u64>(f));
        case __NR_munmap:
            return unmap(static_cast<u64>(a), static_cast<u64>(b));
        case __NR_madvise:
            return advise(static_cast<u64>(a), static_cast<u64>(b), c);
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
