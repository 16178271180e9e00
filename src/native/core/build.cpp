#include "build.h"

#include "descriptor.h"
#include "memory_limit.h"

namespace pht {

namespace {

using sys::kMapAnonymous;
using sys::kMapFixed;
using sys::kMapPrivate;
using sys::kProtRead;
using sys::kProtWrite;

constexpr int kCollapseTries = 4;

// A scratch mapping that is unmapped again unless it is handed on.
class Scratch {
public:
    explicit Scratch(u64 length) : length_(length) {}
    ~Scratch() {
        if (address_) sys::munmap(address_, length_);
    }
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;
    Outcome reserve() { return reserve_scratch(length_, &address_); }
    u64 address() const { return address_; }
    // Takes over a mapping made elsewhere, at a 2 MiB boundary.
    void adopt(u64 address) { address_ = address; }
    // After a mmap(MAP_FIXED) that failed there may be a hole, and soon another thread's memory in
    // it: what is left of the reservation stays.
    Outcome lose(Outcome outcome) {
        address_ = 0;
        return outcome;
    }
    Outcome hand_on(u64 target, Aside *aside) {
        *aside = {address_, target, length_, {Status::no_huge_page, Call::none, 0}};
        address_ = 0;
        return done();
    }

private:
    u64 address_ = 0, length_;
};

// MADV_COLLAPSE may answer EAGAIN half way (a page was busy, or off the LRU for a moment).
long collapse(u64 address, u64 length) {
    long result = 0;
    for (int i = 0; i < kCollapseTries; ++i) {
        result = sys::madvise(address, length, sys::kMadvCollapse);
        if (result != -sys::kEagain) break;
    }
    return result;
}

Buffer<80> memory_name(const Region &region) {
    Buffer<80> name;
    name.add("pyhugetext:");
    // PR_SET_VMA_ANON_NAME refuses a few characters; the name is for people only.
    const Str base = basename(region.path_text());
    for (size_t i = 0; i < base.size && i < 64; ++i) {
        const char c = base.data[i];
        const bool plain = c > ' ' && c < 127 && c != '[' && c != ']' && c != '\\' && c != '$' &&
                           c != '`' && c != '(' && c != ')';
        const char safe = plain ? c : '_';
        name.add({&safe, 1});
    }
    return name;
}

Outcome write_all(int fd, u64 from, u64 size, u64 offset) {
    while (size > 0) {
        const long got = sys::uninterrupted([&] { return sys::pwrite(fd, from, size, offset); });
        if (sys::failed(got)) return refused(Call::pwrite, got);
        if (got == 0) return refused(Call::pwrite, -sys::kEio);
        const auto n = static_cast<u64>(got);
        from += n, offset += n, size -= n;
    }
    return done();
}

Outcome copy_all(u64 to, u64 from, u64 size) {
    while (size > 0) {
        const long got = sys::uninterrupted([&] { return sys::copy_memory(to, from, size); });
        if (sys::failed(got)) return refused(Call::copy, got);
        if (got == 0) return refused(Call::copy, -sys::kEfault);
        const auto n = static_cast<u64>(got);
        from += n, to += n, size -= n;
    }
    return done();
}

int create_memfd(const char *name) {
    // Ask for an executable one explicitly where the kernel knows the flag (6.3); vm.memfd_noexec
    // may forbid it.
    const unsigned flags = sys::kMfdCloexec | sys::kMfdAllowSealing;
    long fd = sys::memfd_create(name, flags | sys::kMfdExec);
    if (fd == -sys::kEinval) fd = sys::memfd_create(name, flags);
    return static_cast<int>(fd);
}

// A sealed memory file, mapped readable and executable from the start: never writable and
// executable, no mprotect to executable. It is collapsed while it is all but empty, so that each
// byte is written once, into the huge page.
Outcome build_memfd(const Region &region, u64 target, u64 length, Aside *aside) {
    const Descriptor fd(create_memfd(memory_name(region).data));
    if (fd < 0) return refused(Call::memfd_create, fd);
    // The limit counts for memory files too.
    if (length > sys::resource_limit(sys::kLimitFileSize, sys::kUnlimited))
        return refused(Call::ftruncate, -sys::kEfbig);
    long result = sys::ftruncate(fd, length);
    if (sys::failed(result)) return refused(Call::ftruncate, result);
    Scratch scratch(length);
    Outcome outcome = scratch.reserve();
    if (!outcome.ok()) return outcome;
    // Private, so that a debugger can still plant a breakpoint (copy on write).
    result = sys::mmap(scratch.address(), length, region.text_protection(), kMapPrivate | kMapFixed,
                       fd, 0);
    if (sys::failed(result)) return scratch.lose(refused(Call::mmap, result));
    const u8 zero = 0;
    for (u64 at = 0; at < length; at += kHugeSize) {
        outcome = write_all(fd, reinterpret_cast<u64>(&zero), 1, at);
        if (!outcome.ok()) return outcome;
    }
    sys::madvise(scratch.address(), length, sys::kMadvHugepage);
    result = collapse(scratch.address(), length);
    if (sys::failed(result)) return refused(Call::collapse, result);
    outcome = each_content(region, target, length, [&](u64 start, u64 end, u64) {
        return write_all(fd, start, end - start, start - target);
    });
    if (!outcome.ok()) return outcome;
    result =
        sys::add_seals(fd, sys::kSealSeal | sys::kSealShrink | sys::kSealGrow | sys::kSealWrite);
    if (sys::failed(result)) return refused(Call::seal, result);
    sys::sync_instructions(scratch.address(), length);
    sys::madvise(scratch.address(), length, sys::kMadvPopulateRead);
    return scratch.hand_on(target, aside);
}

// Anonymous memory: written first, made executable afterwards, never both.
Outcome build_anonymous(const Region &region, const Pagemap &pagemap, u64 target, u64 length,
                        bool hugetlb, Aside *aside) {
    Scratch scratch(length);
    Outcome outcome = done();
    int flags = kMapPrivate | kMapAnonymous;
    if (hugetlb) {
        // Not over a reservation: MAP_FIXED leaves a hole when the pool is empty, which another
        // thread may fill before it is given back. The kernel aligns these by itself.
        flags |= sys::kMapHugetlb | sys::kMapHuge2M;
    } else {
        outcome = scratch.reserve();
        if (!outcome.ok()) return outcome;
        flags |= kMapFixed;
    }
    long result = sys::mmap(scratch.address(), length, kProtRead | kProtWrite, flags, -1, 0);
    if (sys::failed(result)) return scratch.lose(refused(Call::mmap, result));
    scratch.adopt(static_cast<u64>(result));
    Outcome small = {Status::no_huge_page, Call::none, 0};
    if (!hugetlb) {
        result = sys::madvise(scratch.address(), length, sys::kMadvHugepage);
        if (sys::failed(result))
            small = {Status::no_huge_page, Call::hugepage, static_cast<u16>(-result)};
        sys::name_memory(scratch.address(), length, memory_name(region).data);
    }
    outcome = each_content(region, target, length, [&](u64 start, u64 end, u64) {
        return copy_all(scratch.address() + (start - target), start, end - start);
    });
    if (!outcome.ok()) return outcome;
    // Where the faults gave small pages; kernels before about 6.18 collapse anonymous memory only
    // while it is not executable.
    if (!hugetlb && !pagemap.all_huge(scratch.address(), length)) {
        result = collapse(scratch.address(), length);
        if (sys::failed(result) && small.call == Call::none)
            small = {Status::no_huge_page, Call::collapse, static_cast<u16>(-result)};
    }
    sys::sync_instructions(scratch.address(), length);
    result = sys::mprotect(scratch.address(), length, region.text_protection());
    if (sys::failed(result)) return refused(Call::mprotect, result);
    outcome = scratch.hand_on(target, aside);
    aside->small = small;
    return outcome;
}

// The original file itself, huge in the page cache: where the kernel can collapse it (7.x on file
// systems with large folios) and address and offset are congruent. No copy at all.
Outcome build_file(const Region &region, const Sources &sources, u64 target, u64 length,
                   Aside *aside) {
    const Pagemap &pagemap = sources.pagemap;
    constexpr Outcome unsupported = {Status::unsupported, Call::none, 0};
    u64 offset = 0;
    bool known = false;
    for (const Piece &piece : region.pieces) {
        if (!piece.from_file() || piece.end <= target || piece.start >= target + length) continue;
        const u64 here = piece.offset + target - piece.start;  // may wrap below 0, and back
        if (known && here != offset) return unsupported;
        offset = here;
        known = true;
    }
    if (!known || offset % kHugeSize != 0 || offset > (1ull << 62)) return unsupported;
    if (!sources.opened.ok()) return sources.opened;
    Scratch scratch(length);
    Outcome outcome = scratch.reserve();
    if (!outcome.ok()) return outcome;
    long result = sys::mmap(scratch.address(), length, region.text_protection(),
                            kMapPrivate | kMapFixed, sources.original.fd(), offset);
    if (sys::failed(result)) return scratch.lose(refused(Call::mmap, result));
    sys::madvise(scratch.address(), length, sys::kMadvHugepage);
    // Another process may have collapsed it already: one touch tells, and spares this one a
    // collapse, which waits for every CPU.
    sys::madvise(scratch.address(), kPageSize, sys::kMadvPopulateRead);
    bool huge = pagemap.all_huge(scratch.address(), kHugeSize);
    if (huge) {
        sys::madvise(scratch.address(), length, sys::kMadvPopulateRead);
        huge = pagemap.all_huge(scratch.address(), length);
    }
    if (!huge) {
        result = collapse(scratch.address(), length);
        if (sys::failed(result)) return refused(Call::collapse, result);
        result = sys::madvise(scratch.address(), length, sys::kMadvPopulateRead);
        if (sys::failed(result)) return refused(Call::read, result);
    }
    return scratch.hand_on(target, aside);
}

// The shared store, on disk or in shared memory. On disk nothing is touched: the pages come at
// their first use. In shared memory a copy is huge once somebody collapsed it.
Outcome build_store(const Region &region, Backing backing, const Sources &sources, u64 target,
                    u64 length, Aside *aside) {
    if (!sources.opened.ok()) return sources.opened;
    Scratch scratch(length);
    u64 address = 0;
    const Outcome outcome = sources.stores.map(backing, region, sources.original.fd(),
                                               sources.original.file(), target, length, &address);
    if (!outcome.ok()) return outcome;
    scratch.adopt(address);
    if (backing == Backing::shm) {
        sys::madvise(scratch.address(), length, sys::kMadvPopulateRead);
        if (!sources.pagemap.all_huge(scratch.address(), length)) {
            // The huge pages would be charged to this process's group.
            MemoryTurn turn;
            const Outcome allowed = turn.take_shared(length, sys::kUnlimited, 0);
            if (!allowed.ok()) return allowed;
            const long result = collapse(scratch.address(), length);
            if (sys::failed(result)) return refused(Call::collapse, result);
        }
    }
    return scratch.hand_on(target, aside);
}

}  // namespace

void discard(u64 address, u64 length) {
    if (length) sys::munmap(address, length);
}

Outcome reserve_scratch(u64 length, u64 *address) {
    const long got = sys::mmap(0, length + kHugeSize, sys::kProtNone,
                               kMapPrivate | kMapAnonymous | sys::kMapNoReserve, -1, 0);
    if (sys::failed(got)) return refused(Call::mmap_reserve, got);
    const auto start = static_cast<u64>(got);
    const u64 aligned = round_up(start, kHugeSize);
    if (aligned > start) sys::munmap(start, aligned - start);
    if (aligned < start + kHugeSize) sys::munmap(aligned + length, start + kHugeSize - aligned);
    *address = aligned;
    return done();
}

long probe_huge(int fd, u64 offset, u64 length, bool collapse_first, u64 *bytes) {
    *bytes = 0;
    if (length == 0 || length % kHugeSize || offset % kHugeSize) return -sys::kEinval;
    Pagemap pagemap;
    if (const long error = pagemap.open()) return error;
    Scratch scratch(length);
    const Outcome reserved = scratch.reserve();
    if (!reserved.ok()) return -static_cast<long>(reserved.error);
    const long got = sys::mmap(scratch.address(), length, kProtRead | sys::kProtExec,
                               kMapPrivate | kMapFixed, fd, offset);
    if (sys::failed(got)) {
        scratch.lose(done());
        return got;
    }
    // What a filter on this process refuses says nothing about the file system.
    const long advised = sys::madvise(scratch.address(), length, sys::kMadvHugepage);
    if (sys::failed(advised)) return advised;
    const long collapsed = collapse_first ? collapse(scratch.address(), length) : 0;
    const long touched = sys::madvise(scratch.address(), length, sys::kMadvPopulateRead);
    if (sys::failed(touched)) return touched;
    // No array: this runs without the engine's lock, too.
    for (u64 at = 0; at < length; at += kHugeSize) {
        u8 huge = 0;
        if (const long error = pagemap.find_huge(scratch.address() + at, 1, &huge)) return error;
        *bytes += huge ? kHugeSize : 0;
    }
    // A part is better than nothing; of nothing the reason counts.
    return *bytes ? 0 : collapsed;
}

bool is_mapped_file(int fd, u32 dev_major, u32 dev_minor, u64 inode) {
    const long at = sys::mmap(0, kPageSize, kProtRead, kMapPrivate, fd, 0);
    if (sys::failed(at)) return false;
    bool same = false;
    each_mapping([&](const Mapping &mapping) {
        const auto address = static_cast<u64>(at);
        if (mapping.end <= address) return true;
        same = mapping.start <= address && mapping.inode == inode &&
               mapping.dev_major == dev_major && mapping.dev_minor == dev_minor;
        return false;
    });
    sys::munmap(static_cast<u64>(at), kPageSize);
    return same;
}

Original::~Original() {
    if (fd_ >= 0) sys::close(fd_);
}

Outcome Original::open(const Region &region) {
    // What has that name now may be a FIFO without a writer.
    const long fd =
        sys::open_at(sys::kAtFdcwd, region.path.data(), sys::kOpenReadOnly | sys::kOpenNonBlock);
    if (sys::failed(fd)) return {Status::file_gone, Call::open, static_cast<u16>(-fd)};
    fd_ = static_cast<int>(fd);
    const long result = sys::identify(fd_, &file_);
    if (sys::failed(result)) return refused(Call::statx, result);
    const sys::FileIdentity &known = region.file;
    const bool unchanged = !known.size || (file_.size == known.size && file_.mtime == known.mtime &&
                                           file_.mtime_ns == known.mtime_ns);
    touched_ = known.size && (file_.ctime != known.ctime || file_.ctime_ns != known.ctime_ns);
    const bool same = file_.inode == region.inode && file_.dev_major == region.dev_major &&
                      file_.dev_minor == region.dev_minor;
    if (unchanged &&
        (same || is_mapped_file(fd_, region.dev_major, region.dev_minor, region.inode)))
        return done();
    return {Status::file_gone, Call::none, 0};
}

Outcome build(Backing backing, const Region &region, const Sources &sources, u64 target, u64 length,
              Aside *aside) {
    switch (backing) {
        case Backing::file:
            return build_file(region, sources, target, length, aside);
        case Backing::store:
        case Backing::shm:
            return build_store(region, backing, sources, target, length, aside);
        case Backing::memfd:
            return build_memfd(region, target, length, aside);
        case Backing::thp:
            return build_anonymous(region, sources.pagemap, target, length, false, aside);
        case Backing::hugetlb:
            return build_anonymous(region, sources.pagemap, target, length, true, aside);
        default:
            return {Status::unsupported, Call::none, 0};
    }
}

}  // namespace pht
