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

// Adds the pages of a region that the program has used and that are small, the most used first.
// False where that cannot be told.
bool find_used(const Region &region, const Pagemap &pagemap, MappedArray<UsedPage> *out) {
    bool known = true;
    const size_t begin = out->size();
    const auto small = [](const HugePage &page) { return page.state == HugePage::State::small; };
    each_run(region.pages, small, [&](size_t first, size_t count) {
        MappedArray<u16> counts;
        known = known && counts.resize(count) &&
                pagemap.count_present(region.address_of(first), count, counts.data()).ok();
        for (size_t i = 0; i < count && known; ++i)
            if (counts[i]) known = out->push({region.address_of(first + i), counts[i]});
    });
    sort(out->data() + begin, out->size() - begin, [](const UsedPage &a, const UsedPage &b) {
        return a.used != b.used ? a.used > b.used : a.address < b.address;
    });
    return known;
}

// A region that waits, with its used pages.
struct Waiting {
    const Region *region;
    size_t first, count, density;
    bool known;
};

// How much of each page that is to be built is used, of 512.
size_t density_of(const Region &region, const UsedPage *used, size_t count) {
    size_t sum = 0;
    for (size_t i = 0; i < count; ++i) sum += used[i].used;
    const size_t pages = region.coverable_bytes <= kSmallText ? region.pages.size() : count;
    return pages ? sum / pages : 0;
}

}  // namespace

// What is used most comes first: there may be time for little.
bool Engine::list_missing(WantedList *wanted) {
    const Locked locked;
    if (!locked.ok()) return false;
    MappedArray<Waiting> waiting;
    MappedArray<UsedPage> used;
    Pagemap pagemap;
    (void)pagemap.open();
    for (const Region *region : table_.regions()) {
        if (!region->missing) continue;
        const size_t first = used.size();
        const bool known = find_used(*region, pagemap, &used);
        const size_t count = used.size() - first;
        if (!waiting.push(
                {region, first, count, density_of(*region, used.data() + first, count), known}))
            return false;
    }
    sort(waiting.data(), waiting.size(), [](const Waiting &a, const Waiting &b) {
        return a.density != b.density ? a.density > b.density
                                      : a.region->object.low < b.region->object.low;
    });
    for (const Waiting &one : waiting) {
        const Region &region = *one.region;
        if (!region.path_text().size || !region.file.inode) continue;
        const bool whole = region.coverable_bytes <= kSmallText || !one.known;
        const bool lacks = region.grows && region.lacks;
        // What has all it wants in shared memory is better on disk; what is there in part comes
        // from nowhere else.
        const bool disk_only = region.backing == Backing::store ||
                               (region.backing == Backing::shm && region.outcome.ok() && !lacks);
        const u64 bias = region.object.load_bias;
        Wanted now;
        now.bias = bias % kHugeSize;
        now.file = region.file;
        now.whole = whole;
        if (region.outlived)
            now.itself = Itself::taken;
        else if (refuses_itself(region))
            now.itself = is_to_be_noted(region) && !lacks ? Itself::to_note : Itself::refused;
        bool memory = wanted->add(region.path_text(), now, disk_only);
        for (size_t i = 0; i < one.count && !whole && memory; ++i)
            memory = wanted->add_page(used[one.first + i].address - bias);
        if (!memory) break;
    }
    return !waiting.empty();
}

void Engine::promise(const WantedList *wanted) {
    const Locked locked;
    if (!locked.ok()) return;
    using State = WantedList::State;
    const auto is = [&](State state, const Region &region) {
        if (!wanted) return state == State::promised;
        for (size_t i = 0; i < wanted->size(); ++i)
            if (wanted->state(i) == state && equal(region.path_text(), str(wanted->at(i).path)))
                return true;
        return false;
    };
    for (Region *region : table_.regions()) {
        if (!region->missing) continue;
        region->promised = is(State::promised, *region);
        // What is huge meanwhile no later pass looks at.
        const bool settled = region->state() == Region::State::huge && is(State::done, *region);
        if (!region->promised && !settled) continue;
        region->missing = false;
        if (region->backing == Backing::none) region->outcome = {Status::promised, Call::none, 0};
    }
    note_waiting();
}

}  // namespace pht
