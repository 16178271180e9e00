// Which pages are worth 2 MiB of memory where that is scarce, or of a store.
#include "limits/memory.h"
#include "text/table.h"

namespace pht {

namespace {

// A control group of so little memory; and how much of a page somebody has to use there. A page of
// the store counts whole against the group, and in the PSS of whoever maps it.
constexpr u64 kScarce = 256ull << 20;
constexpr u16 kWorthIt = 512 / 2;

}  // namespace

// Whether the program has touched what an entry has no copy of; what is only left out for want of
// memory it has. Where the page table tells nothing nobody waits for it.
bool Table::uses_absent(const Region &region, const Pagemap &pagemap) {
    bool any = false;
    const auto lacks = [](const HugePage &page) {
        return page.state == HugePage::State::small && page.absent &&
               page.outcome.status == Status::absent;
    };
    each_run(region.pages, lacks, [&](size_t first, size_t count) {
        Array<u16> used;
        if (any || !used.resize(count) ||
            !pagemap.count_present(region.address_of(first), count, used.data()).ok())
            return;
        for (const u16 pages : used) any = any || pages > 0;
    });
    return any;
}

bool Table::find_used_beyond() {
    bool any = false;
    Pagemap pagemap;  // outside a pass nobody closes the table's
    if (!pagemap.open().ok()) return false;
    for (Region *region : regions_) {
        if (!region->seen || !region->grows || region->missing) continue;
        region->lacks = region->missing = uses_absent(*region, pagemap);
        any = any || region->missing;
    }
    return any;
}

bool Table::can_grow() const {
    for (const Region *region : regions_)
        if (region->grows && region->any_small()) return true;
    return false;
}

// Asked once in a process, since it reads a dozen small files.
bool Table::is_scarce() {
    if (!knows_room_) {
        MemoryRoom room;
        memory_room(&room);
        scarce_ = room.limit <= kScarce;
        knows_room_ = true;
    }
    return scarce_;
}

// Leaves what little is used of on the original's small pages, which others share. The
// interpreter's own is used by definition, and is all that most starts see. Returns how many.
size_t Table::leave_little_used(Region &region, const Pagemap &pagemap) {
    const u64 interpreter = __atomic_load_n(&interpreter_, __ATOMIC_RELAXED);
    const Object &object = region.object;
    if (object.is_main || (object.low <= interpreter && interpreter < object.high)) return 0;
    if (!is_scarce()) return 0;
    Array<u16> used;
    if (!used.resize(region.pages.size()) ||
        !pagemap.count_present(region.base, region.pages.size(), used.data()).ok())
        return 0;
    size_t left = 0;
    for (size_t i = 0; i < region.pages.size(); ++i) {
        HugePage &page = region.pages[i];
        if (page.state != HugePage::State::small || page.absent || used[i] >= kWorthIt) continue;
        page.absent = true;
        page.outcome = {Status::little_used, Call::none, 0};
        ++left;
    }
    return left;
}

}  // namespace pht
