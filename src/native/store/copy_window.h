// A copy's bytes, read through a mapping with MADV_HUGEPAGE: read(2) would fill the page cache
// with small folios, and whoever maps the copy afterwards would get small pages.
#pragma once

#include "kernel/sys.h"
#include "words/status.h"

namespace pht {

class CopyWindow : NonCopyable {
public:
    explicit CopyWindow(int fd = -1) : fd_(fd) {}
    // [offset, offset + length) is mapped at `address` already, the first `present` bytes of it
    // by the page table; what lies outside is mapped here.
    CopyWindow(int fd, u64 address, u64 offset, u64 length, u64 present)
        : fd_(fd), address_(address), offset_(offset), length_(length), present_(present) {}
    ~CopyWindow() { drop(); }

    // Goes to another copy.
    void use(int fd) {
        drop();
        fd_ = fd;
        length_ = 0;
    }

    // Whether the copy has exactly these bytes at `at`: done(), Status::damaged, or why it cannot
    // be read.
    Outcome expect(u64 at, const u8 *bytes, size_t size);

    // Reads bytes of it.
    Outcome read(u64 at, u8 *to, size_t size);

private:
    // Sees to it that they are in memory, at *where.
    Outcome reach(u64 at, size_t size, u64 *where);
    Outcome move_to(u64 at, size_t size);
    void drop();

    int fd_;
    u64 address_ = 0, offset_ = 0, length_ = 0, present_ = 0;
    bool ours_ = false;
};

}  // namespace pht
