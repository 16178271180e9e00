// Copies that were huge in the page cache do not stay so: what the kernel dropped for other
// programs it reads back in small pages where no 2 MiB are free at that moment, and so they stay
// for as long as they are cached; and what was written by others than the builder is small at once.
//
// What is clean and mapped by nobody can be dropped, and read again once there is room. Where the
// kernel collapses files (Linux 7.2, and with READ_ONLY_THP_FOR_FS) that is done, once they are
// clean: it needs neither.
#pragma once

#include "elf/region.h"
#include "kernel/pagemap.h"

namespace pht {

// What the page cache has of a stretch of a copy, in 4 KiB pages.
struct Cached {
    bool known = false;  // false where the kernel does not tell, or must not be asked
    u64 pages = 0, unwritten = 0, evicted = 0;
};

// A copy that is open. Of one that was not seen to be on disk: the store's index and its record
// there, else -1; see written.h.
struct Copy {
    int fd;
    int index = -1;
    const char *name = nullptr;
};

class Mender : NonCopyable {
public:
    // May take so many nanoseconds, from the first page on that it finds small. Gives up before
    // where pages cannot be dropped or no room is made, unless somebody asked for it.
    explicit Mender(u64 budget, bool asked = false) : budget_(budget), asked_(asked) {}

    // Looks at [address, address + count * 2 MiB), freshly mapped from the copy at `offset` for the
    // region's pages from `target` on, and mends what is small of it. Sets left[i] where a page
    // is small all the same, which *why tells of: who maps it would keep it so for all others.
    // Fails where the copy is no good. *huge: the first page is there as a whole.
    //
    // Where nothing is in doubt only the first page, which was touched before, and a few others
    // are looked at; else all that is cached. No more of it stays in this process's page table than
    // it uses of the original.
    Outcome look(const Region &region, const Copy &copy, const Pagemap &pagemap, u64 offset,
                 u64 target, u64 address, size_t count, u8 *left, Outcome *why, bool *huge);

    // Drops 2 MiB of a copy, mapped at `address`, and reads them again. done(): they are huge now.
    // Status::small_copy: not now. Status::refused: they cannot be read any more.
    Outcome mend(int copy, const Pagemap &pagemap, u64 offset, u64 address);

    // Sees to it that a stretch of a copy is on disk. Status::small_copy where that takes longer
    // than there is time for; Status::damaged where it was not written.
    Outcome write_back(const Copy &copy, u64 offset, u64 length);

    Cached cached(int copy, u64 offset, u64 length);

    // What it took so far.
    u64 spent() const { return began_ ? sys::since(began_) : 0; }

private:
    struct Run;
    bool is_over() const { return began_ && sys::since(began_) >= budget_; }
    void begin() { began_ = began_ ? began_ : sys::now(); }
    bool may_mend();
    bool make_room(const Pagemap &pagemap);
    Outcome drop(int copy, u64 offset, u64 address, bool *seen);
    bool seems_huge(const Run &run);
    Outcome mend_all(const Run &run);
    static void leave_small(const Run &run);
    static void drop_unmapped(const Run &run);
    Outcome mend_whole(const Run &run, bool first_is_small);
    bool collapse_page(const Pagemap &pagemap, u64 address);
    bool collapse_whole(const Run &run);
    static Outcome drop_all(const Run &run);

    bool gives_up() const { return !asked_ && (cramped_ || busy_ >= kMostBusy); }

    // As many pages of others are tried to be dropped in one pass: each time every processor is
    // asked to let go of what it has in hand.
    static constexpr int kMostBusy = 4;
    const u64 budget_;
    const bool asked_;
    u64 began_ = 0;
    bool doubtful_ = false;  // some page was small in this pass
    bool cramped_ = false;   // no 2 MiB could be had
    int busy_ = 0;           // pages that could not be dropped
    enum class Answer : u8 { unknown, no, yes };
    Answer may_ask_ = Answer::unknown, may_mend_ = Answer::unknown, has_room_ = Answer::unknown;
    Answer collapses_ = Answer::unknown;
};

}  // namespace pht
