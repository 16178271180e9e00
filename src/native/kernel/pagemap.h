// What the kernel knows of single pages; see Documentation/admin-guide/mm/pagemap.rst.
#pragma once

#include "kernel/maps.h"

namespace pht {

// Of any process: marks the 2 MiB pages that are mapped by one entry (kOneEntry), or at least in
// part by small pages (kSmallEntries). `fd` is open on its pagemap. ENOTTY before Linux 6.7.
enum : u8 { kNothing = 0, kOneEntry = 1, kSmallEntries = 2 };
ErrorOr<void> find_entries(int fd, u64 start, size_t count, u8 *marks);

class Pagemap : NonCopyable {
public:
    Pagemap() = default;
    ~Pagemap() { close(); }

    // Opens it unless it is open. Where it is closed to this process, as to one that changed its
    // user, all that follows is answered by smaps, as well as that tells; see smaps.h.
    ErrorOr<void> open();
    void close() {
        if (fd_ >= 0) sys::close(fd_);
        fd_ = -1;
    }

    // Finds the 2 MiB pages of [start, start + count * 2 MiB) in which a page of the program's was
    // changed: a private file page that was written to is anonymous, whoever wrote (the program, a
    // debugger, a uprobe). Sets marks[i].
    ErrorOr<void> find_modified(u64 start, size_t count, u8 *marks) const;

    // Counts the small pages that are present in each of these 2 MiB pages, into counts[i], which
    // is at most 512. Of a file's they are those that were used, and what the kernel mapped around.
    ErrorOr<void> count_present(u64 start, size_t count, u16 *counts) const;

    // Finds the 2 MiB pages that the kernel maps with one entry. Sets marks[i]. Kernels before 6.7
    // answer for the whole mapping only: all pages or none are marked.
    ErrorOr<void> find_huge(u64 start, size_t count, u8 *marks) const;

    // As the function of that name. Also ENOTTY where only smaps is there, and it cannot tell.
    ErrorOr<void> find_entries(u64 start, size_t count, u8 *marks) const;

    // How much of a range the kernel maps so. Before Linux 6.7, and where only smaps is there, what
    // is huge of a mapping that begins in it is taken to lie in it, as far as it can; of others all
    // or nothing counts.
    u64 huge_bytes(u64 start, u64 length) const;
    bool all_huge(u64 start, u64 length) const { return huge_bytes(start, length) >= length; }

    bool tells_pages() const { return fd_ >= 0; }
    // Whether find_huge() told of single pages when it was last asked.
    bool tells_of_pages() const { return tells_; }

private:
    int fd_ = -1;
    mutable bool tells_ = true;
};

}  // namespace pht
