#include "text/build.h"

#include "kernel/descriptor.h"
#include "limits/memory.h"

namespace pht {

namespace {

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
        const auto got =
            sys::uninterrupted([&] { return sys::pwrite(fd, from, size, offset); }).nonzero(EIO);
        if (!got.ok()) return refused(Call::pwrite, got);
        const u64 n = got.value();
        from += n, offset += n, size -= n;
    }
    return done();
}

Outcome copy_all(u64 to, u64 from, u64 size) {
    while (size > 0) {
        const auto got =
            sys::uninterrupted([&] { return sys::copy_memory(to, from, size); }).nonzero(EFAULT);
        if (!got.ok()) return refused(Call::copy, got);
        const u64 n = got.value();
        from += n, to += n, size -= n;
    }
    return done();
}

ErrorOr<int> create_memfd(const char *name) {
    // Ask for an executable one explicitly where the kernel knows the flag (6.3); vm.memfd_noexec
    // may forbid it.
    const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    auto fd = sys::memfd_create(name, flags | MFD_EXEC);
    if (fd.error() == EINVAL) fd = sys::memfd_create(name, flags);
    return fd;
}

// What was built, to be moved to its target.
Outcome stage(Scratch *scratch, u64 target, u64 length, Staged *staged) {
    *staged = {scratch->hand_on(), target, length, {Status::no_huge_page, Call::none, 0}};
    return done();
}

// Collapses memory of a file in which hardly anything is present yet. Linux 6.1 answers EINVAL
// where no page table is there, though it collapsed: what counts is how it is mapped once it is
// touched.
ErrorOr<void> collapse_empty(const Pagemap &pagemap, u64 address, u64 length) {
    auto result = collapse(address, length);
    if (result.error() != EINVAL || !knows_collapse()) return result;
    if (!touch_each(address, length).ok()) return result;
    if (pagemap.all_huge(address, length)) return {};
    result = collapse(address, length);
    if (result.ok()) return {};
    // A part is better than nothing; each page is looked at in the end.
    return pagemap.huge_bytes(address, length) ? ErrorOr<void>{} : result;
}

// A sealed memory file, mapped readable and executable from the start: never writable and
// executable, no mprotect to executable. It is collapsed while it is all but empty, so that each
// byte is written once, into the huge page.
Outcome build_memfd(const Region &region, const Pagemap &pagemap, u64 target, u64 length,
                    Staged *staged) {
    const Descriptor fd(create_memfd(memory_name(region).data));
    if (!fd.ok()) return refused(Call::memfd_create, fd);
    // The limit counts for memory files too.
    if (length > sys::resource_limit(RLIMIT_FSIZE, sys::kUnlimited))
        return refused(Call::ftruncate, Error{EFBIG});
    auto result = sys::ftruncate(fd, length);
    if (!result.ok()) return refused(Call::ftruncate, result);
    Scratch scratch(length);
    const auto reserved = scratch.reserve();
    if (!reserved.ok()) return refused(Call::mmap_reserve, reserved);
    // Private, so that a debugger can still plant a breakpoint (copy on write).
    const auto mapped = sys::mmap(scratch.address(), length, region.text_protection(),
                                  MAP_PRIVATE | MAP_FIXED, fd, 0);
    if (!mapped.ok()) {
        scratch.hand_on();
        return refused(Call::mmap, mapped);
    }
    const u8 zero = 0;
    Outcome outcome = done();
    for (u64 at = 0; at < length; at += kHugeSize) {
        outcome = write_all(fd, reinterpret_cast<u64>(&zero), 1, at);
        if (!outcome.ok()) return outcome;
    }
    (void)sys::madvise(scratch.address(), length, MADV_HUGEPAGE);
    result = collapse_empty(pagemap, scratch.address(), length);
    if (!result.ok()) return refused(Call::collapse, result);
    outcome = each_content(region, target, length, [&](u64 start, u64 end, u64) {
        return write_all(fd, start, end - start, start - target);
    });
    if (!outcome.ok()) return outcome;
    result = sys::add_seals(fd, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    if (!result.ok()) return refused(Call::seal, result);
    sys::sync_instructions(scratch.address(), length);
    (void)sys::madvise(scratch.address(), length, MADV_POPULATE_READ);
    return stage(&scratch, target, length, staged);
}

// process_vm_readv(2) pins what it reads. Of a reserved page that a forked child shares the kernel
// makes a copy for that, and takes the page from the child where the pool has no other: it ends by
// SIGBUS. Reserved pages are read like any memory; they have no file that could be cut short.
Outcome copy_reserved(u64 to, u64 from, u64 size) {
    copy(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), size);
    return done();
}

// Anonymous memory: written first, made executable afterwards, never both.
Outcome build_anonymous(const Region &region, const Pagemap &pagemap, u64 target, u64 length,
                        bool hugetlb, Staged *staged, bool from_reserved = false) {
    Scratch scratch(length);
    Outcome outcome = done();
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    if (hugetlb) {
        // Not over a reservation: MAP_FIXED leaves a hole when the pool is empty, which another
        // thread may fill before it is given back. The kernel aligns these by itself.
        flags |= MAP_HUGETLB | MAP_HUGE_2MB;
    } else {
        const auto reserved = scratch.reserve();
        if (!reserved.ok()) return refused(Call::mmap_reserve, reserved);
        flags |= MAP_FIXED;
    }
    const auto mapped = sys::mmap(scratch.address(), length, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (!mapped.ok()) {
        scratch.hand_on();
        return refused(Call::mmap, mapped);
    }
    scratch.adopt(mapped.value());
    Outcome small = {Status::no_huge_page, Call::none, 0};
    if (!hugetlb) {
        const auto advised = sys::madvise(scratch.address(), length, MADV_HUGEPAGE);
        if (!advised.ok()) small = {Status::no_huge_page, Call::hugepage, advised.error()};
        sys::name_memory(scratch.address(), length, memory_name(region).data);
    }
    outcome = each_content(region, target, length, [&](u64 start, u64 end, u64) {
        const u64 to = scratch.address() + (start - target);
        return from_reserved ? copy_reserved(to, start, end - start)
                             : copy_all(to, start, end - start);
    });
    if (!outcome.ok()) return outcome;
    // Where the faults gave small pages; kernels before about 6.18 collapse anonymous memory only
    // while it is not executable.
    if (!hugetlb && !pagemap.all_huge(scratch.address(), length)) {
        const auto collapsed = collapse(scratch.address(), length);
        if (!collapsed.ok() && small.call == Call::none)
            small = {Status::no_huge_page, Call::collapse, collapsed.error()};
    }
    sys::sync_instructions(scratch.address(), length);
    const auto protection = sys::mprotect(scratch.address(), length, region.text_protection());
    if (!protection.ok()) return refused(Call::mprotect, protection);
    outcome = stage(&scratch, target, length, staged);
    staged->small = small;
    return outcome;
}

// Collapses what is small of a mapped file but its first 2 MiB, and touches it all. Untouched,
// Linux 6.1 answers EINVAL though it collapses; and it does where the file ends inside the last 2
// MiB, which must not keep it from the others. What came of it the page table tells.
Outcome collapse_rest(const Pagemap &pagemap, u64 address, u64 length, u64 file_length) {
    constexpr Outcome small = {Status::no_huge_page, Call::none, 0};
    (void)touch_each(address, length);
    if (pagemap.all_huge(address, length)) return small;
    const u64 end = address + min(length, round_down(file_length, kHugeSize));
    u64 at = address + kHugeSize;
    ErrorOr<void> result;
    if (at < end) result = collapse(at, end - at);
    // Where one page cannot be collapsed now the kernel does not go on to those behind it.
    for (; at < end && !result.ok(); at += kHugeSize) (void)collapse(at, kHugeSize);
    if (end < address + length) {
        const auto last = collapse(end, address + length - end);
        if (result.ok()) result = last;
    }
    (void)touch_each(address, length);
    return result.ok() ? small : Outcome{Status::no_huge_page, Call::collapse, result.error()};
}

// The original file itself, huge in the page cache: where the kernel can collapse it (7.x on file
// systems with large folios; with READ_ONLY_THP_FOR_FS what nobody has open for writing) and
// address and offset are congruent. No copy at all.
Outcome build_file(const Region &region, const Sources &sources, u64 target, u64 length,
                   Staged *staged) {
    const Pagemap &pagemap = sources.pagemap;
    constexpr Outcome unsupported = {Status::unsupported, Call::none, 0};
    u64 offset = 0;
    bool known = false;
    for (const Extent &extent : region.extents) {
        if (!extent.from_file() || extent.end <= target || extent.start >= target + length)
            continue;
        const u64 here = extent.offset + target - extent.start;  // may wrap below 0, and back
        if (known && here != offset) return unsupported;
        offset = here;
        known = true;
    }
    if (!known || offset % kHugeSize != 0 || offset > (1ull << 62)) return unsupported;
    if (!sources.opened.ok()) return sources.opened;
    Scratch scratch(length);
    const auto reserved = scratch.reserve();
    if (!reserved.ok()) return refused(Call::mmap_reserve, reserved);
    const auto mapped = sys::mmap(scratch.address(), length, region.text_protection(),
                                  MAP_PRIVATE | MAP_FIXED, sources.original.fd(), offset);
    if (!mapped.ok()) {
        scratch.hand_on();
        return refused(Call::mmap, mapped);
    }
    (void)sys::madvise(scratch.address(), length, MADV_HUGEPAGE);
    // Another process may have collapsed it already: one touch tells, and spares this one a
    // collapse, which waits for every CPU.
    (void)touch(scratch.address(), kPageSize);
    const u64 size = sources.original.file().size;
    if (!pagemap.all_huge(scratch.address(), kHugeSize)) {
        // Where the kernel cannot do it at all it says so of the first 2 MiB, and nothing of the
        // file is read for it.
        const auto result = collapse(scratch.address(), kHugeSize);
        if (!result.ok() && offset + kHugeSize > size)
            return {Status::no_huge_page, Call::collapse, result.error()};
        if (!result.ok()) return refused(Call::collapse, result);
    }
    const Outcome small = collapse_rest(pagemap, scratch.address(), length, size - offset);
    // Small, they have nothing behind the file's end, and who reads all that is readable would get
    // SIGBUS there. Before Linux 6.7 it is known of the whole mapping only whether all is huge.
    const u64 last = length - kHugeSize;
    if (offset + length > size && !pagemap.all_huge(scratch.address() + last, kHugeSize))
        sources.left[last / kHugeSize] = 1;
    const Outcome result = stage(&scratch, target, length, staged);
    staged->small = small;
    return result;
}

// The shared store, on disk or in shared memory. On disk nothing is touched: the pages come at
// their first use. In shared memory a copy is huge once somebody collapsed it.
Outcome build_store(const Region &region, Backing backing, const Sources &sources, u64 target,
                    u64 length, Staged *staged) {
    Scratch scratch(length);
    u64 address = 0;
    Outcome small = {Status::no_huge_page, Call::none, 0};
    Mender *const mender = backing == Backing::store ? sources.mender : nullptr;
    const Outcome outcome = sources.entry->map(region, sources.pagemap, mender, target, length,
                                               sources.left, &small, &address);
    if (!outcome.ok()) return outcome;
    scratch.adopt(address);
    if (backing == Backing::shm) {
        (void)sys::madvise(scratch.address(), length, MADV_POPULATE_READ);
        if (!sources.pagemap.all_huge(scratch.address(), length)) {
            // The huge pages would be charged to this process's group.
            MemoryTurn turn;
            const Outcome allowed = turn.take_shared(length, sys::kUnlimited, 0);
            if (!allowed.ok()) return allowed;
            const auto result = collapse(scratch.address(), length);
            if (!result.ok()) return refused(Call::collapse, result);
        }
    }
    const Outcome result = stage(&scratch, target, length, staged);
    staged->small = small;
    return result;
}

}  // namespace

void discard(u64 address, u64 length) {
    if (length) sys::munmap(address, length);
}

Original::~Original() {
    if (fd_ >= 0) sys::close(fd_);
}

Outcome Original::open(const Region &region) {
    // What has that name now may be a FIFO without a writer.
    const auto fd = sys::open_at(AT_FDCWD, region.path.data(), O_RDONLY | O_NONBLOCK);
    if (!fd.ok()) return {Status::file_gone, Call::open, fd.error()};
    fd_ = fd.value();
    const auto result = sys::identify(fd_, &file_);
    if (!result.ok()) return refused(Call::statx, result);
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
              Staged *staged) {
    switch (backing) {
        case Backing::file:
            return build_file(region, sources, target, length, staged);
        case Backing::store:
        case Backing::shm:
            return build_store(region, backing, sources, target, length, staged);
        case Backing::memfd:
            return build_memfd(region, sources.pagemap, target, length, staged);
        case Backing::thp:
            return build_anonymous(region, sources.pagemap, target, length, false, staged);
        case Backing::hugetlb:
            return build_anonymous(region, sources.pagemap, target, length, true, staged);
        default:
            return {Status::unsupported, Call::none, 0};
    }
}

Outcome build_from_reserved(const Region &region, const Sources &sources, u64 target, u64 length,
                            Staged *staged) {
    return build_anonymous(region, sources.pagemap, target, length, false, staged, true);
}

}  // namespace pht
