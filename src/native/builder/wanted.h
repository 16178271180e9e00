// What is asked of a builder.
#pragma once

#include "kernel/memory.h"
#include "kernel/strings.h"

namespace pht {

// What is known of taking the original itself, without a copy, on this kernel: not asked; to be
// asked before anything is built; it cannot; it cannot, which the record of an entry that has all
// is to say; it can, so that an entry is of no use.
enum class Itself : u8 { unknown, to_ask, refused, to_note, taken };

// Which file, where it is loaded, and what of it.
struct Wanted {
    const char *path = nullptr;  // absolute, NUL-terminated
    u64 bias = 0;                // load bias modulo 2 MiB
    sys::FileIdentity file;      // as it was mapped; inode 0: whatever has the path
    bool whole = true;           // all of its text; else these pages, the most used first
    Itself itself = Itself::unknown;
    const u64 *pages = nullptr;  // addresses less the load bias, as in a Range
    size_t page_count = 0;
};

// The originals that wait for an entry, or for more of one.
class WantedList {
public:
    // With all of its text, or with the pages that follow (its own path and pages do not count);
    // and whether only an entry on disk is of use.
    [[nodiscard]] bool add(Str path, const Wanted &wanted, bool disk_only);
    // A page of the last one; the most used first.
    [[nodiscard]] bool add_page(u64 address) {
        ++items_[items_.size() - 1].wanted.page_count;
        return pages_.push(address);
    }
    void clear();
    size_t size() const { return items_.size(); }
    Wanted at(size_t i) const {
        const Item &item = items_[i];
        Wanted out = item.wanted;
        out.path = text_.data() + item.path;
        out.pages = pages_.data() + item.page;
        return out;
    }
    // Done: there is nothing left to do. Promised: the store will have it, or the rest, before
    // long, and other copies would be useless then.
    enum class State : u8 { waiting, done, promised };
    State state(size_t i) const { return items_[i].state; }
    void set(size_t i, State state) {
        items_[i].state = state;
        changed_ = true;
    }
    // Whether there is anything to do now: what was added can be mapped, or something has to come
    // from elsewhere.
    bool calls_for_pass() const { return changed_ || any(State::waiting); }
    // What is left for a store in shared memory.
    void leave_disk_only();
    // Those that nothing was done about.
    void promise_rest();
    bool any(State state) const;

private:
    struct Item {
        Wanted wanted;
        size_t path, page;
        bool disk_only;
        State state;
    };
    MappedArray<Item> items_;
    MappedArray<char> text_;
    MappedArray<u64> pages_;
    bool changed_ = false;
};

}  // namespace pht
