// Planning: any segments, and mappings as a kernel has them (sorted, none over another), which need
// not be what a loader made. A model by small pages says what may be planned. And the same for who
// plans from a file's headers what another process has mapped.

#include "elf/plan.h"

#include <vector>

#include "check.h"
#include "process/elsewhere.h"

using pht::Extent;
using pht::HugePage;
using pht::kHugeSize;
using pht::kPageSize;
using pht::PlainMapping;
using pht::Segment;
using pht::u64;
using pht::u8;

namespace {

constexpr u64 kBases[] = {0x10000, 0x400000, 0x5ff000, 0x7f0000155000,
                          (1ull << 47) - (64ull << 20)};
constexpr u64 kPages = (32ull << 20) / kPageSize;  // what mappings and segments lie in
constexpr u64 kInode = 42;

struct Case {
    pht::Array<Segment> segments;
    pht::Array<PlainMapping> mappings;
    u64 low = ~0ull, high = 0, base = 0;
    bool is_main = false, inward = false;
};

u64 pages(fuzz::Input *input) {  // few mostly, some as large as huge pages are
    const u8 way = input->number();
    return way & 1 ? 1 + input->number<pht::u16>() % 2048 : 1 + (way >> 1);
}

void read(fuzz::Input *input, Case *out) {
    const u8 kind = input->number();
    out->is_main = kind & 1;
    out->inward = kind & 2;
    out->base = kBases[(kind >> 2) % 5];
    for (u64 at = 0, n = input->number() % 12; n && at < kPages; --n) {
        // Signed: segments may overlap.
        const auto step = static_cast<signed char>(input->number());
        at = step < 0 && at < static_cast<u64>(-step) ? 0 : at + static_cast<u64>(step);
        const u64 end = at + pages(input);
        const u8 flags = input->number();
        const Segment one = {out->base + at * kPageSize, out->base + end * kPageSize,
                             (flags & 1) != 0, (flags & 2) != 0};
        CHECK(out->segments.push(one));
        out->low = std::min(out->low, one.start);
        out->high = std::max(out->high, one.end);
        at = end;
    }
    for (u64 at = out->base > kHugeSize ? out->base - kHugeSize : 0; input->left();) {
        const u8 flags = input->number();
        if (flags & 1) at += pages(input) * kPageSize;
        const u64 end = at + pages(input) * kPageSize;
        if (end > out->base + 2 * kPages * kPageSize) break;
        const bool file = flags & 2;
        const u64 offset = flags & 4 ? at - out->base : input->number() * kPageSize;
        CHECK(out->mappings.push({at, end, file ? offset : 0, file ? kInode + (flags >> 7) : 0, 8,
                                  1, (flags & 8) != 0, (flags & 16) != 0, (flags & 32) != 0,
                                  (flags & 64) != 0}));
        at = end;
    }
}

void check_extents(const pht::Region &region) {
    u64 end = 0;
    for (const Extent &extent : region.extents) {
        CHECK(extent.start < extent.end && extent.start >= end);
        CHECK(extent.start % kPageSize == 0 && extent.end % kPageSize == 0);
        end = extent.end;
        for (const Segment &segment : region.object.segments)
            CHECK(!segment.writable || extent.end <= segment.start || extent.start >= segment.end);
    }
}

// What may be done with a small page of an object, by the rules in plan.h. `next` is the first
// mapping that may have it, where pages are asked for in their order.
enum class Small : u8 { no, filler, text };
Small judge(const Case &given, const pht::Region &region, u64 at, size_t *next) {
    bool writable = false, segment = false;
    for (const Segment &one : given.segments) {
        if (at < one.start || at >= one.end) continue;
        writable = writable || one.writable;
        segment = true;
    }
    if (writable) return Small::no;
    const bool inside = given.low <= at && at < given.high;
    while (*next < given.mappings.size() && given.mappings[*next].end <= at) ++*next;
    if (*next < given.mappings.size() && at >= given.mappings[*next].start) {
        const PlainMapping &mapping = given.mappings[*next];
        if (!inside || mapping.shared || mapping.writable) return Small::no;
        if (!mapping.readable) return mapping.executable || segment ? Small::no : Small::filler;
        if (mapping.inode != region.inode) return Small::no;
        return mapping.executable && segment ? Small::text : Small::filler;
    }
    return segment || !(inside || given.is_main) ? Small::no : Small::filler;
}

void check_pages(const Case &given, const pht::Region &region) {
    u64 text = 0, coverable = 0;
    size_t next = 0;
    for (size_t i = 0; i < region.pages.size(); ++i) {
        const HugePage &page = region.pages[i];
        const u64 start = region.address_of(i);
        CHECK(start % kHugeSize == 0 && page.text <= kHugeSize);
        text += page.text;
        if (page.state == HugePage::State::unusable) continue;
        CHECK(page.state == HugePage::State::small);
        coverable += page.text;
        CHECK(page.text > 0 && (!given.inward || page.text == kHugeSize));
        CHECK(start >= pht::round_down(given.low, kHugeSize) &&
              start + kHugeSize <= pht::round_up(given.high, kHugeSize));
        u64 seen = 0;
        for (u64 at = start; at < start + kHugeSize; at += kPageSize) {
            const Small small = judge(given, region, at, &next);
            CHECK(small != Small::no && (!given.inward || small == Small::text));
            seen += small == Small::text ? kPageSize : 0;
        }
        CHECK(seen == page.text);
        u64 covered = 0;
        for (const Extent &extent : region.extents) {
            const u64 from = std::max(extent.start, start),
                      to = std::min(extent.end, start + kHugeSize);
            if (from < to) covered += to - from;
        }
        CHECK(covered == kHugeSize);
    }
    CHECK(text == region.text_bytes && coverable == region.coverable_bytes);
}

// The way of process/elsewhere.h: mappings, some of them in place of what a loader made.
void check_elsewhere(fuzz::Input input, const Case &given) {
    std::vector<Elf64_Phdr> headers;
    for (const Segment &segment : given.segments) {
        Elf64_Phdr header = {};
        header.p_type = PT_LOAD;
        header.p_flags = PF_R | (segment.writable ? PF_W : 0) | (segment.executable ? PF_X : 0);
        header.p_vaddr = segment.start - given.base;
        header.p_offset = header.p_vaddr;
        header.p_memsz = segment.end - segment.start;
        header.p_filesz = header.p_memsz - (header.p_memsz > kPageSize ? input.number() : 0);
        headers.push_back(header);
    }
    std::vector<pht::ProcessMapping> mappings;
    for (const PlainMapping &mapping : given.mappings)
        mappings.push_back({mapping, (input.number() & 3) == 0});
    const pht::ProcessObject object = {given.base,
                                       headers.data(),
                                       headers.size(),
                                       given.is_main,
                                       8,
                                       1,
                                       kInode,
                                       pht::Backing::store,
                                       {},
                                       mappings.data(),
                                       mappings.size()};
    pht::Region region;
    CHECK(pht::plan_elsewhere(object, &region));
    u64 coverable = 0;
    for (const HugePage &page : region.pages)
        if (page.state != HugePage::State::unusable) coverable += page.text;
    CHECK(coverable == region.coverable_bytes && coverable <= region.text_bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    const fuzz::Execution execution;
    fuzz::may_use_pool = true;
    fuzz::Input input(data, size);
    Case given;
    read(&input, &given);
    if (given.segments.empty()) return 0;
    pht::Region region;
    region.object.is_main = given.is_main;
    region.object.low = given.low;
    region.object.high = given.high;
    for (const Segment &segment : given.segments) CHECK(region.object.segments.push(segment));
    CHECK(pht::plan(region, given.mappings, given.inward));
    check_extents(region);
    check_pages(given, region);
    check_elsewhere(fuzz::Input(data, size), given);
    return 0;
}
