// Memory at 2 MiB boundaries, mapped away from everything: to build in, or to try what the kernel
// does.
#pragma once

#include "kernel/pagemap.h"

namespace pht {

// Reserves `length` bytes of address space at a 2 MiB boundary, inaccessible.
ErrorOr<u64> reserve_scratch(u64 length);

// A scratch mapping that is unmapped again unless it is handed on.
class Scratch : NonCopyable {
public:
    explicit Scratch(u64 length) : length_(length) {}
    ~Scratch() {
        if (address_) sys::munmap(address_, length_);
    }

    ErrorOr<void> reserve() {
        const auto got = reserve_scratch(length_);
        if (!got.ok()) return Error(got);
        address_ = got.value();
        return {};
    }
    // The same, and maps a stretch of a file there.
    ErrorOr<void> map(int fd, u64 offset, int protection) {
        if (const auto reserved = reserve(); !reserved.ok()) return reserved;
        const auto got =
            sys::mmap(address_, length_, protection, MAP_PRIVATE | MAP_FIXED, fd, offset);
        if (got.ok()) return {};
        (void)hand_on();
        return Error(got);
    }
    u64 address() const { return address_; }
    // Takes over a mapping made elsewhere, at a 2 MiB boundary.
    void adopt(u64 address) { address_ = address; }
    // Gives it to somebody else. Also after a mmap(MAP_FIXED) that failed: there may be a hole, and
    // soon another thread's memory in it, so what is left of the reservation stays.
    u64 hand_on() {
        const u64 address = address_;
        address_ = 0;
        return address;
    }

private:
    u64 address_ = 0, length_;
};

// Maps what is there of [address, address + length), which is readable, into the page table: all of
// it, also before Linux 5.14, which has no call for that.
ErrorOr<void> touch(u64 address, u64 length);

// The same with the first page of each 2 MiB: all, where those are huge.
ErrorOr<void> touch_each(u64 address, u64 length);

// Whether the kernel, and any filter, has MADV_COLLAPSE at all (Linux 6.1); asked about nothing.
bool knows_collapse();

// MADV_COLLAPSE; tried again where a page was busy, or off the LRU for a moment (EAGAIN).
ErrorOr<void> collapse(u64 address, u64 length);

// How a copy of an object is mapped where it is only tried what the kernel makes of it: as text is,
// but after try_unexecuted(), for the whole process, without PROT_EXEC, as a copy has other content
// beside text (PYHUGETEXT_STRICT).
void try_unexecuted();
int trial_protection();

// Maps a stretch of a file as text is mapped, touches it (and collapses it first, if asked), and
// counts the bytes the kernel then maps in 2 MiB pages.
ErrorOr<void> probe_huge(int fd, u64 offset, u64 length, bool collapse_first, u64 *bytes,
                         int protection = PROT_READ | PROT_EXEC);

// Whether a descriptor is the file that maps names so. st_dev does not tell: btrfs and overlayfs
// have another device there than in maps.
bool is_mapped_file(int fd, u32 dev_major, u32 dev_minor, u64 inode);

}  // namespace pht
