// The hosted side of the core: it knows the dynamic linker, locks and fork; still no Python.
#pragma once

#include "builder/missing.h"
#include "process/elsewhere.h"
#include "text/table.h"

namespace pht {

// What is known of one object, flat, for readers outside the lock.
struct PageRunView {
    u64 start, end;
    bool huge;
    Outcome outcome;
};
struct TextRange {
    u64 start, end;
};
struct RegionView {
    u64 low, high;  // the object's span
    u64 text_bytes, coverable_bytes, mapped_bytes, elapsed_ns;
    size_t path, path_size;            // into Snapshot::text
    size_t first_page_run, page_runs;  // into Snapshot::page_runs: the planned 2 MiB pages
    size_t first_text, texts;          // into Snapshot::texts: executable file text
    Backing backing;
    Outcome outcome;
    Outcome tried[kBackings];
    BuildId build_id;
};
struct Snapshot {
    bool started = false;  // remap was asked for, at start-up or by call
    bool enabled = false;  // and not undone by restore()
    Outcome machine;       // whether this machine can do it at all
    Outcome last;          // of the last pass as a whole
    u64 elapsed_ns = 0;    // spent in all passes
    Array<RegionView> regions;
    Array<PageRunView> page_runs;
    Array<TextRange> texts;
    Array<char> text;
    Array<char> reasons;  // why entries were not built: sentences, each ended by a NUL
};

// Whoever has the engine build, and may want to go on: asked between two entries, without any lock
// of the process.
struct Patience {
    bool (*ends)(void *context);
    void *context;
};

// remap() could not have the lock: see lock.h.
constexpr long kBusy = -2;

// One engine a process. The core's memory is not safe for threads, so whatever allocates or gives
// back happens inside. What changes anything takes the lock, or does nothing where it cannot be had
// (see lock.h); none throws; all may be called from any thread.
class Engine {
public:
    Engine();
    // Made when it is first asked for.
    static Engine &get();
    // From now on remap() swaps nothing, and says why: this is not the process's engine.
    void stand_aside(Status why) {
        __atomic_store_n(&aside_, static_cast<u8>(why), __ATOMIC_RELAXED);
    }

    // Swaps what the request asks for and remembers it for libraries loaded later. With a named
    // backing, regions that have another one are put back first, with another plan all. Returns how
    // many regions wait for a store entry to be built, or, when nothing was done, -1 because memory
    // ran out, or kBusy. `scope` is fresh when nothing was ever swapped: then only what is around
    // the objects is read.
    long remap(const Request &request, Table::Scope scope);
    // Another pass, after entries were built; with fall_back, what is still missing goes to the
    // next backing. Returns how many still wait.
    size_t retry(bool fall_back);
    // Builds the entries that the last pass found missing, as far as the request allows, and passes
    // again. Never leaves a region waiting: whatever the building comes to, the next backing
    // follows. Runs without the lock and with signals as they are; one thread of the process at a
    // time: while another one does it, it is left to that, or with `wait` done after it; and to
    // this thread where it is further up in it. False where the host's patience ended.
    bool complete(const Patience &patience, bool wait);

    // At the start: see tidy_memory() of builder/served.h.
    void tidy(const Request &request);
    // The decisions that were not told yet, a line each, for PYHUGETEXT_DEBUG.
    void report(MappedArray<char> *out);
    // As probe_huge() of the core.
    static ErrorOr<void> probe(int fd, u64 offset, u64 size, bool collapse, u64 *bytes);
    // True when something new may be coverable, or what is promised waits for time. Cheap enough
    // for every import: no lock, and no system call, which a seccomp filter might kill for.
    // `loaded`: a library was just opened, so that the dynamic linker's lock is known to be well;
    // see lock.h.
    bool stale(bool loaded);
    // Looks at libraries loaded since the last pass. Returns whether anything was decided. Stands
    // still, until the next remap(), where a seccomp filter was added since the last one.
    bool poll(size_t *missing);
    bool restore();  // false: the lock could not be had
    // nullptr when memory ran out. Unless somebody `asked` for it, of what is known where the
    // dynamic linker may not answer.
    const Snapshot *take_snapshot(bool asked);
    // One region of another process, as it would be in a snapshot there but for the path and what
    // only that process knows; nullptr when memory ran out.
    static const Snapshot *plan_elsewhere(const ProcessObject &object);
    static void free_snapshot(const Snapshot *snapshot);
    bool started() const;
    // See Table.
    void interpreter_at(u64 address) { table_.interpreter_at(address); }

private:
    bool watching() const {
        return __atomic_load_n(&enabled_, __ATOMIC_RELAXED) &&
               __atomic_load_n(&able_, __ATOMIC_RELAXED) && still() == Status::ok;
    }
    Status still() const { return static_cast<Status>(__atomic_load_n(&still_, __ATOMIC_RELAXED)); }
    Status aside() const { return static_cast<Status>(__atomic_load_n(&aside_, __ATOMIC_RELAXED)); }
    void stand(Status why) { __atomic_store_n(&still_, static_cast<u8>(why), __ATOMIC_RELAXED); }
    void see(const struct Visit &visit);
    struct Visit seen(Table *table) const;
    void fill(Snapshot *out, bool looks);
    static bool add_view(const Region &region, Snapshot *out);
    Outcome look(Table::Scope scope, struct Visit *visit);
    Outcome look_at_all();  // small objects too, for people
    void pass(Table::Scope scope);
    void follow_user();
    void note_waiting();
    bool look_beyond();
    void put_back(Backing keep, bool only_small = false);
    // For the builder, in its own memory. Whether any region waits; whether anything may be built.
    bool list_missing(WantedList *wanted);
    // Marks what is promised, and what waits for nothing any more; all that is missing is promised
    // where no list is given.
    void promise(const WantedList *wanted);
    bool copy_request(Request *request, MappedArray<char> *texts);
    void tell(Str reason);
    static bool add_line(const Region &region, MappedArray<char> *out);
    Request request_;
    Array<char> texts_;        // of the request
    Buffer<64> shared_store_;  // of it, once the user is another one
    MappedArray<char> reasons_;
    Table table_;
    Outcome machine_, last_;
    u64 elapsed_ns_ = 0;
    // Of look_beyond(): the processor time from which on it does; how many imports were let go by
    // last, and are still to be.
    static constexpr u32 kMostSkipped = 15, kNever = ~0u;
    u64 looks_at_ = 0;
    u32 skipped_ = 0, skips_ = kNever;
    u64 seen_adds_ = 0, seen_subs_ = 0;  // these and looked_at_ are used without the lock, too
    u64 listed_subs_ = 0;                // of the last complete listing, if listed_
    bool listed_ = false;
    size_t looked_at_ = 0;  // objects in which the last poll() found nothing new, and the last's
    const Elf64_Phdr *last_looked_at_ = nullptr;  // headers
    u64 filters_ = 0;                             // of the thread that called remap(), then
    u8 still_ = static_cast<u8>(Status::ok);      // else the Status why poll() stands still
    u8 aside_ = static_cast<u8>(Status::ok);      // else the Status why remap() does
    // Read without the lock, too; able_: machine_ is; waiting_: for time to build what is promised.
    bool started_ = false, enabled_ = false, able_ = false, waiting_ = false;
    bool in_passing_ = false;  // a start or an import, which private copies must not delay either
};

}  // namespace pht
