#include "store/copy_window.h"

#include "kernel/scratch.h"
#include "store/trust.h"

namespace pht {

Outcome CopyWindow::reach(u64 at, size_t size, u64 *where) {
    if (at < offset_ || at + size > offset_ + length_) {
        const Outcome outcome = move_to(at, size);
        if (!outcome.ok()) return outcome;
    }
    *where = address_ + (at - offset_);
    const u64 page = round_down(*where, kPageSize);
    // Answers with an error where touching would raise SIGBUS.
    const u64 end = round_up(*where + size, kPageSize);
    ErrorOr<void> result;
    if (end > address_ + present_) result = sys::madvise(page, end - page, MADV_POPULATE_READ);
    return result.ok() ? done() : refused(Call::read, result);
}

Outcome CopyWindow::expect(u64 at, const u8 *bytes, size_t size) {
    u64 where;
    const Outcome outcome = reach(at, size, &where);
    if (!outcome.ok()) return outcome;
    return compare(reinterpret_cast<const void *>(where), bytes, size) == 0
               ? done()
               : bad_entry(Status::damaged);
}

Outcome CopyWindow::read(u64 at, u8 *to, size_t size) {
    u64 where;
    const Outcome outcome = reach(at, size, &where);
    if (outcome.ok()) copy(to, reinterpret_cast<const void *>(where), size);
    return outcome;
}

Outcome CopyWindow::move_to(u64 at, size_t size) {
    drop();
    present_ = 0;
    offset_ = round_down(at, kHugeSize);
    length_ = round_up(at + size, kHugeSize) - offset_;
    const auto reserved = reserve_scratch(length_);
    if (!reserved.ok()) return refused(Call::mmap_reserve, reserved);
    address_ = reserved.value();
    const auto result =
        sys::mmap(address_, length_, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd_, offset_);
    // A mmap(MAP_FIXED) that failed may leave a hole, soon another thread's: nothing is
    // unmapped.
    if (!result.ok()) return refused(Call::mmap, result);
    ours_ = true;
    (void)sys::madvise(address_, length_, MADV_HUGEPAGE);
    return done();
}

void CopyWindow::drop() {
    if (ours_) sys::munmap(address_, length_);
    ours_ = false;
}

}  // namespace pht
