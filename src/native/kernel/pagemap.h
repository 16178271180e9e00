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

    // Opens it unless it is open.
    ErrorOr<void> open() {
        if (fd_ >= 0) return {};
        const auto fd = sys::open("/proc/self/pagemap");
        if (!fd.ok()) return Error(fd);
        fd_ = fd.value();
        return {};
    }
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

    // How much of a range the kernel maps so. Before 6.7 it must be a whole mapping, else 0.
    u64 huge_bytes(u64 start, u64 length) const;
    bool all_huge(u64 start, u64 length) const { return huge_bytes(start, length) >= length; }

    // Whether find_huge() told of single pages when it was last asked.
    bool tells_of_pages() const { return tells_; }

    int fd() const { return fd_; }

private:
    int fd_ = -1;
    mutable bool tells_ = true;
};

}  // namespace pht
