// What of the text is used: asked for when an entry is built.
#include "builder/sort.h"
#include "engine/engine.h"
#include "engine/lock.h"

namespace pht {

namespace {

// Of an object with so much text all is built, of larger ones what is used.
constexpr u64 kSmallText = 16ull << 20;

struct UsedPage {
    u64 address;
    u16 used;  // small pages of it
};

// The pages of a region that the program has used and that are small, the most used first. False
// where that cannot be told.
bool find_used(const Region &region, const Pagemap &pagemap, MappedArray<UsedPage> *out) {
    bool known = true;
    const auto small = [](const HugePage &page) { return page.state == HugePage::State::small; };
    each_run(region.pages, small, [&](size_t first, size_t count) {
        MappedArray<u16> counts;
        known = known && counts.resize(count) &&
                pagemap.count_present(region.address_of(first), count, counts.data()).ok();
        for (size_t i = 0; i < count && known; ++i)
            if (counts[i]) known = out->push({region.address_of(first + i), counts[i]});
    });
    sort(out->data(), out->size(), [](const UsedPage &a, const UsedPage &b) {
        return a.used != b.used ? a.used > b.used : a.address < b.address;
    });
    return known;
}

bool add_wanted(const Region &region, const Pagemap &pagemap, WantedList *wanted) {
    MappedArray<UsedPage> used;
    const bool whole = region.coverable_bytes <= kSmallText || !find_used(region, pagemap, &used);
    // What has all it wants in shared memory is better on disk.
    const bool disk_only =
        region.backing == Backing::shm && region.outcome.ok() && !region.outcome.buildable;
    bool memory = wanted->add(region.path_text(), region.object.load_bias % kHugeSize, region.file,
                              whole, disk_only);
    for (size_t i = 0; i < used.size() && !whole && memory; ++i)
        memory = wanted->add_page(used[i].address - region.object.load_bias);
    return memory;
}

// How much of each page that is to be built is used, of 512.
size_t density(const Region &region, const Pagemap &pagemap) {
    MappedArray<UsedPage> used;
    if (!find_used(region, pagemap, &used) || used.empty()) return 0;
    size_t sum = 0;
    for (const UsedPage &page : used) sum += page.used;
    const bool whole = region.coverable_bytes <= kSmallText;
    return sum / (whole ? max<size_t>(region.pages.size(), 1) : used.size());
}

}  // namespace

// What is used most comes first: there may be time for little.
bool Engine::list_missing(WantedList *wanted) {
    const Locked locked;
    if (!locked.ok()) return false;
    struct Item {
        size_t which, density;
    };
    MappedArray<Item> items;
    Pagemap pagemap;
    (void)pagemap.open();
    const Array<Region *> &regions = table_.regions();
    for (size_t i = 0; i < regions.size(); ++i)
        if (regions[i]->missing && !items.push({i, density(*regions[i], pagemap)})) return false;
    sort(items.data(), items.size(), [](const Item &a, const Item &b) {
        return a.density != b.density ? a.density > b.density : a.which < b.which;
    });
    for (const Item &item : items) {
        const Region &region = *regions[item.which];
        if (region.path_text().size && region.file.inode && !add_wanted(region, pagemap, wanted))
            break;
    }
    return !items.empty();
}

void Engine::promise(const WantedList *wanted) {
    const Locked locked;
    if (!locked.ok()) return;
    const auto is_promised = [&](const Region &region) {
        if (!wanted) return true;
        for (size_t i = 0; i < wanted->size(); ++i)
            if (wanted->state(i) == WantedList::State::promised &&
                equal(region.path_text(), str(wanted->at(i).path)))
                return true;
        return false;
    };
    for (Region *region : table_.regions()) {
        if (!region->missing || !is_promised(*region)) continue;
        region->promised = true;
        region->missing = false;
        if (region->backing == Backing::none) region->outcome = {Status::promised, Call::none, 0};
    }
}

}  // namespace pht
