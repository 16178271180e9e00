// Text from the store that did not stay on huge pages: finding it, and how long mending may take.
#include "text/table.h"

namespace pht {

namespace {

// Nanoseconds: of one pass and of all together where a program starts or imports, and where
// somebody called remap().
constexpr u64 kOfAPass = 50'000'000, kOfAll = 250'000'000, kAsked = 5'000'000'000;

}  // namespace

u64 Table::mending_time() const {
    if (mends_patiently_) return kAsked;
    return min(kOfAPass, kOfAll - min(kOfAll, mended_ns_));
}

void Table::mended(u64 nanoseconds) {
    if (!mends_patiently_) mended_ns_ += nanoseconds;
}

bool Table::find_small() {
    bool any = false;
    const auto disabled = sys::huge_pages_disabled();
    if ((disabled.ok() && disabled.value()) || !pagemap_.open().ok()) return false;
    for (Region *region : regions_) {
        region->mends = false;
        region->used.clear();
        if (region->backing != Backing::store || !region->any_huge()) continue;
        Array<u8> marks;
        const size_t count = region->pages.size();
        if (!marks.resize(count) || !pagemap_.find_entries(region->base, count, marks.data()).ok())
            continue;
        for (size_t i = 0; i < count; ++i) {
            if (marks[i] == kNothing) continue;
            (void)region->used.push(region->address_of(i));
            const bool swapped = region->pages[i].state == HugePage::State::huge;
            if (swapped && marks[i] == kSmallEntries) any = region->mends = true;
        }
    }
    pagemap_.close();
    return any;
}

void Table::restore_small() {
    for (Region *region : regions_) {
        if (region->mends && region->any_huge()) put_back(*region);
        region->mends = false;
    }
    pagemap_.close();
}

}  // namespace pht
