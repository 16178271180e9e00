#include "text/table.h"

#include <new>

#include "kernel/maps.h"
#include "text/displace.h"
#include "text/swap.h"

namespace pht {

namespace {

void span_of(u64 load_bias, const Elf64_Phdr *headers, size_t count, u64 *low) {
    *low = ~0ull;
    for (size_t i = 0; i < count; ++i)
        if (headers[i].p_type == PT_LOAD && headers[i].p_memsz)
            *low = min(*low, round_down(load_bias + headers[i].p_vaddr, kPageSize));
}

}  // namespace

Outcome check_machine(u64 page_size) {
    // With pages of 4 KiB a page table maps 2 MiB, on x86_64 and aarch64 alike.
    return page_size == kPageSize ? done() : Outcome{Status::unsupported, Call::none, 0};
}

const Region *Table::find(u64 low, u64 headers) const {
    for (const Region *region : regions_)
        if (region->object.low == low && region->object.headers == headers) return region;
    return nullptr;
}

Region *Table::find(u64 low, u64 headers) {
    for (size_t i = 0; i < regions_.size(); ++i) {
        const size_t at = (next_ + i) % regions_.size();
        Region *region = regions_[at];
        if (region->object.low != low || region->object.headers != headers) continue;
        next_ = at + 1;
        return region;
    }
    return nullptr;
}

Region *Table::find_lasting(u64 headers) {
    for (size_t i = 0; i < regions_.size(); ++i) {
        const size_t at = (next_ + i) % regions_.size();
        if (regions_[at]->object.headers != headers) continue;
        next_ = at + 1;
        return regions_[at];
    }
    return nullptr;
}

bool Table::knows(u64 load_bias, const Elf64_Phdr *headers, size_t count) const {
    u64 low;
    span_of(load_bias, headers, count, &low);
    const Region *region = find(low, reinterpret_cast<u64>(headers));
    return region && !region->fresh;
}

void Table::begin_listing() {
    for (Region *region : regions_) region->seen = false;
    next_ = 0;
}

bool Table::list(u64 load_bias, const Elf64_Phdr *headers, size_t count, bool is_main,
                 bool lasting) {
    // By their address alone: to read the headers would bring a page of each library into the page
    // table of a forked child that does not use it, and where it is huge, 2 MiB of PSS.
    if (lasting) {
        if (Region *known = find_lasting(reinterpret_cast<u64>(headers))) {
            known->seen = true;
            return true;
        }
    }
    void *memory = allocate(sizeof(Region));
    if (!memory) return false;
    auto *region = new (memory) Region;
    const auto drop = [&] {
        region->~Region();
        release(region, sizeof(Region));
    };
    if (!read_object(load_bias, headers, count, is_main, &region->object)) {
        drop();
        return false;
    }
    region->object.bti = region->object.bti && bti_;
    region->candidate = is_main || may_be_coverable(load_bias, headers, count);
    const Object &object = region->object;
    if (object.segments.empty()) {
        drop();
        return true;
    }
    if (Region *old = find(object.low, object.headers)) {
        // Another object may have come to the same place: then the old one is not seen again.
        // Segments are not compared: the headers in memory are the store copy's once swapped.
        const Object &known = old->object;
        const bool same =
            known.high == object.high && known.build_id.size == object.build_id.size &&
            compare(known.build_id.bytes, object.build_id.bytes, object.build_id.size) == 0;
        if (same) {
            old->seen = true;
            drop();
            return true;
        }
    }
    if (!regions_.push(region)) {
        drop();
        return false;
    }
    return true;
}

void Table::end_listing() {
    for (size_t i = regions_.size(); i-- > 0;)
        if (!regions_[i]->seen) remove(i);
}

void Table::remove(size_t index) {
    Region *region = regions_[index];
    discard_displaced(*region);
    region->~Region();
    release(region, sizeof(Region));
    for (size_t i = index + 1; i < regions_.size(); ++i) regions_[i - 1] = regions_[i];
    [[maybe_unused]] const bool shrunk = regions_.resize(regions_.size() - 1);
}

void Table::finish(Region &region) {
    region.outcome = done();
    for (const HugePage &page : region.pages)
        if (page.state == HugePage::State::small) region.outcome = page.outcome;
    if (!region.any_huge()) region.backing = Backing::none;
}

void Table::commit() {
    MapsQuery query(false);
    for (Region *region : regions_) {
        if (region->staged.empty()) continue;
        const u64 began = sys::now();
        pht::commit(*region, pagemap_, query);
        finish(*region);
        region->elapsed_ns += sys::since(began);
    }
    pagemap_.close();
    prepared_private_ = 0;
}

// Drops what was staged for a region.
void Table::unstage(Region &region) {
    for (const Staged &staged : region.staged) discard(staged.address, staged.length);
    region.staged.clear();
    for (HugePage &page : region.pages) page.ready = 0;
}

void Table::abandon() {
    for (Region *region : regions_) {
        if (region->staged.empty()) continue;
        unstage(*region);
        if (region->any_huge()) continue;
        region->backing = Backing::none;
        region->outcome = {};
        region->fresh = true;
    }
    pagemap_.close();
    prepared_private_ = 0;
}

void Table::put_back(Region &region) {
    if (const auto open = pagemap_.open(); !open.ok()) {
        region.outcome = {Status::unreadable, Call::pagemap, open.error()};
        return;
    }
    const Stores none({}, pagemap_);
    Original original;
    const Outcome opened = original.open(region);
    pht::restore(region, {pagemap_, none, original, opened});
    Outcome outcome = {Status::restored, Call::none, 0};
    for (const HugePage &page : region.pages)
        if (page.state == HugePage::State::huge) outcome = page.outcome;
    region.outcome = outcome;
    if (!region.any_huge()) region.backing = Backing::none;
}

void Table::restore(Backing keep) {
    for (Region *region : regions_)
        if (region->any_huge() && region->backing != keep) put_back(*region);
    pagemap_.close();
}

bool Table::has_promised() const {
    for (const Region *region : regions_)
        if (region->promised && region->any_small()) return true;
    return false;
}

void Table::settle_promises() {
    for (Region *region : regions_) region->promised = region->promised && region->missing;
}

size_t Table::missing() const {
    size_t n = 0;
    for (const Region *region : regions_) n += region->missing;
    return n;
}

u64 Table::private_bytes() const {
    u64 bytes = 0;
    for (const Region *region : regions_)
        if (is_private(region->backing)) bytes += region->swapped_bytes();
    return bytes;
}

}  // namespace pht
