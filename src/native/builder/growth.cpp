#include "builder/growth.h"

namespace pht {

namespace {

// Symbols and the like of up to so many chunks come before the text: a profiler that looks at this
// process finds them.
constexpr size_t kFewChunks = 8;

// Of which objects a start stores what no process used so far, too: up to so many chunks of text,
// one in so many of which is used. Where a program uses a library at work that it has loaded, it
// comes to use most of it; of what is larger it never does, and hundreds of megabytes would lie
// there for nothing.
constexpr size_t kMostText = 64, kShareUsed = 4;

class Order {
public:
    Order(const Layout &layout, MappedArray<u32> *out) : layout_(layout), out_(*out) {}

    bool begin() { return chosen_.resize(bitmap_size(layout_.size)); }
    bool add(size_t chunk) {
        if (has_bit(chosen_.data(), chunk)) return true;
        set_bit(chosen_.data(), chunk);
        return out_.push(static_cast<u32>(chunk));
    }
    bool has(size_t chunk) const { return has_bit(chosen_.data(), chunk); }
    // All that are for this.
    bool add_all(Use use) {
        for (size_t chunk = 0; chunk < layout_.uses.size(); ++chunk)
            if ((layout_.uses[chunk] & use) && !add(chunk)) return false;
        return true;
    }
    bool add_page(u64 address) {
        for (const Range &range : layout_.ranges) {
            const u64 at = address - range.address;
            if (at < range.length) return add((range.offset + at) / kHugeSize);
        }
        return true;  // of another plan
    }
    bool fill_gaps() {
        for (size_t chunk = 1; chunk + 1 < layout_.uses.size(); ++chunk)
            if (has(chunk - 1) && !has(chunk) && has(chunk + 1) &&
                (layout_.uses[chunk - 1] & layout_.uses[chunk] & layout_.uses[chunk + 1] &
                 kUseText) &&
                !add(chunk))
                return false;
        return true;
    }

private:
    const Layout &layout_;
    MappedArray<u32> &out_;
    MappedArray<u8> chosen_;
};

}  // namespace

bool order_chunks(const Layout &layout, const Wanted &wanted, const u8 *present,
                  MappedArray<u32> *order, size_t *urgent) {
    order->clear();
    Order chunks(layout, order);
    size_t all = 0, used = 0;
    if (!chunks.begin() || !chunks.add_all(kUseHead)) return false;
    size_t tools = 0;
    for (const u8 use : layout.uses) tools += (use & kUseTools) && !(use & kUseText);
    if (tools <= kFewChunks && !chunks.add_all(kUseTools)) return false;
    if (wanted.whole && !chunks.add_all(kUseText)) return false;
    for (size_t i = 0; i < wanted.page_count; ++i)
        if (!chunks.add_page(wanted.pages[i])) return false;
    if (!chunks.fill_gaps()) return false;
    *urgent = order->size();
    for (size_t chunk = 0; chunk < layout.uses.size(); ++chunk) {
        const bool text = (layout.uses[chunk] & kUseText) != 0;
        all += text;
        used += text && (chunks.has(chunk) || (present && has_bit(present, chunk)));
    }
    if (!chunks.add_all(kUseTools)) return false;
    if (!wanted.whole && (all > kMostText || used * kShareUsed < all)) return true;
    return chunks.add_all(kUseText) && chunks.add_all(kUseDebug);
}

bool find_texts(const Layout &layout, const u8 *bitmap, MappedArray<Range> *texts) {
    for (const Range &range : layout.ranges) {
        bool open = false;
        for (u64 at = 0; at < range.length; at += kHugeSize) {
            const bool there = has_bit(bitmap, (range.offset + at) / kHugeSize);
            if (there && open)
                (*texts)[texts->size() - 1].length += kHugeSize;
            else if (there && !texts->push({range.address + at, kHugeSize, range.offset + at}))
                return false;
            open = there;
        }
    }
    return true;
}

}  // namespace pht
