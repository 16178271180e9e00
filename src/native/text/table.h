// All objects of the process, and the two operations on them. The caller lists the objects it
// knows and decides when; the table does the rest.
#pragma once

#include "text/build.h"
#include "words/request.h"

namespace pht {

class MemoryTurn;

class Table {
public:
    // How observe() plans from now on (see plan()); what is swapped keeps its plan until restore().
    void plan_inward(bool inward) { inward_ = inward; }
    // Whether this aarch64 processor knows BTI (HWCAP2_BTI of the auxiliary vector): elsewhere
    // mprotect(PROT_BTI) fails. Before the first listing.
    void use_bti(bool known) { bti_ = known; }

    // The object at this address is never swapped.
    void keep_out(u64 address) { keep_out_[keep_out_[0] ? 1 : 0] = address; }

    // Some address in the interpreter's own text. Any thread may tell it, at any time.
    void interpreter_at(u64 address) { __atomic_store_n(&interpreter_, address, __ATOMIC_RELAXED); }

    // Listing: begin_listing, list() for every object, end_listing. Regions whose object is no
    // longer listed are forgotten: the dynamic linker unmapped the whole span, our pages with it.
    void begin_listing();
    // `lasting`: nothing was unloaded since the last listing, so what is known is not read again.
    bool list(u64 load_bias, const Elf64_Phdr *headers, size_t count, bool is_main, bool lasting);
    void end_listing();

    // Whether a pass has decided about the object with these headers.
    bool knows(u64 load_bias, const Elf64_Phdr *headers, size_t count) const;

    // How much of the table an operation is about.
    enum class Scope : u8 {
        fresh,       // candidates no pass has decided about
        waiting,     // those, and what a store will have more of
        candidates,  // all that are large enough
        all,         // the small ones too, for statistics
    };

    // Reads /proc/self/maps, plans what is in scope and not swapped, and forgets what it knew of
    // regions whose mappings were replaced behind its back.
    ErrorOr<void> observe(Scope scope);

    // Builds new content aside for what the request wants and is not swapped yet. Ends with
    // regions that have what is staged, for commit(). Changes nothing that the program can see.
    void prepare(const Request &request, Scope scope);
    // How many regions prepare() left alone because a store entry has to be built first.
    size_t missing() const;

    // Whether a store will have more of some region before long.
    bool has_promised() const;
    // Whether an entry in use lacks text that could be added; and whether some of that is used by
    // now, which is missing from then on.
    bool can_grow() const;
    bool find_used_beyond();
    // After prepare(): that of which nothing is missing any more is not waited for.
    void settle_promises();

    // Moves it in. Must run while no object can be unloaded; takes microseconds.
    void commit();
    void abandon();  // drops what prepare() built

    // Puts the original mappings back everywhere, or only where the backing is another one.
    void restore(Backing keep = Backing::none);

    // Whether text from a store on disk that is in use is on small pages somewhere. What is found
    // so is put back by restore_small(), and mended by the pass that follows.
    bool find_small();
    void restore_small();
    // From now on mending takes as long as it takes somebody who asked for it, or no more of a
    // program's own time than a start may.
    void mend_patiently(bool patiently) { mends_patiently_ = patiently; }

    const Array<Region *> &regions() const { return regions_; }
    u64 private_bytes() const;  // in private backings, as committed
    // Nanoseconds that making private copies took in the last pass.
    u64 copying_time() const { return copying_ns_; }

private:
    Region *find(u64 low, u64 headers);
    Region *find_lasting(u64 headers);
    const Region *find(u64 low, u64 headers) const;
    void remove(size_t index);
    void put_back(Region &region);
    u64 mending_time() const;
    void mended(u64 nanoseconds);
    static bool still_ours(const Region &region, const Array<struct PlainMapping> &around);
    Outcome filter(const Region &region, const Request &request) const;
    Outcome may_copy(Backing backing, u64 bytes, const Request &request, MemoryTurn *turn);
    bool is_scarce();
    size_t leave_little_used(Region &region, const Pagemap &pagemap);
    static bool uses_absent(const Region &region, const Pagemap &pagemap);
    Outcome stage_pages(Region &region, Backing backing, const Request &request,
                        const Sources &sources);
    u64 most_copied(const Request &request, u64 own, Status *why) const;
    static size_t leave_cold(Region &region, size_t most, Status why, const Pagemap &pagemap);
    static void unstage(Region &region);
    bool has_maps_for(size_t runs) const;
    bool is_host(const Region &region) const;
    Status why_not_copied(const Region &region) const;
    Outcome build_region(Region &region, Backing backing, const Request &request,
                         const Sources &sources);
    void learn(const Region &region, const Outcome &outcome);
    bool attempt(Region &region, Backing backing, const Request &request, const Sources &sources);
    bool attempt_file_or_entry(Region &region, const Request &request, const Sources &sources);
    void descend(Region &region, const Request &request, const Sources &sources);
    void choose(Region &region, const Request &request, const Sources &sources);
    static void finish(Region &region);
    ErrorOr<void> observe_once(Scope scope, bool *replaced);
    ErrorOr<void> observe_few(Scope scope);
    Outcome plan_again(Region &region, const Array<struct PlainMapping> &around,
                       bool *replaced) const;

    static bool in_scope(const Region &region, Scope scope) {
        if (scope == Scope::all) return true;
        const bool waits = region.missing || region.promised;
        return region.candidate &&
               (scope == Scope::candidates || region.fresh || (scope == Scope::waiting && waits));
    }

    Array<Region *> regions_;
    u64 keep_out_[2] = {};
    bool knows_room_ = false, scarce_ = false;  // the memory of its control group
    u64 interpreter_ = 0;                       // where nobody told, every program counts as one
    size_t next_ = 0;  // where find() looks first: objects are listed in the same order each time
    bool inward_ = false, bti_ = false;
    bool mends_patiently_ = false;
    u64 mended_ns_ = 0;  // at start and in imports
    Pagemap pagemap_;    // open from prepare() to commit(), and while restoring
    u64 mapping_count_ = 0, map_limit_ = sys::kUnlimited;  // of the process; vm.max_map_count
    u64 prepared_private_ = 0;
    u64 copying_ns_ = 0, copied_ns_ = 0, copied_pages_ = 0;  // in this pass; so far, for so many
    u64 too_large_ = sys::kUnlimited;  // the least copy there was no room for in this pass, and why
    Outcome no_room_;
    // The device whose files the kernel refused to collapse in place: asked once, not per library.
    u32 refusing_major_ = 0, refusing_minor_ = 0;
    Outcome refusal_;
    u32 able_major_ = 0, able_minor_ = 0;  // one where it did collapse one
};

// Whether the kernel cannot take the file itself at another start either; and whether that came out
// while an entry gave way, whose record is to say so.
bool refuses_itself(const Region &region);
bool is_to_be_noted(const Region &region);

// Settings of the machine the core depends on: 0, or why it has to stay away.
Outcome check_machine(u64 page_size);

}  // namespace pht
