#include "engine/engine.h"

#include <sys/auxv.h>
#include <unistd.h>

#include <new>

#include "builder/build_time.h"
#include "engine/lock.h"
#include "kernel/filters.h"

namespace pht {

struct Visit {
    Table *table;
    u64 adds, subs;  // in: last seen; out: now
    bool changed, found, complete;
    Backing keep;  // what restore leaves
    bool restores = false;
    bool listed = false;  // in: whether objects were listed before, and with which dlpi_subs
    u64 listed_subs = 0;
    size_t index = 0, known = 0;       // known: how many objects were there at the last look
    const Elf64_Phdr *last = nullptr;  // the headers of the last of them
    bool only_small = false;           // restore puts back what is to be mended, and no more
};

namespace {

alignas(Engine) char storage[sizeof(Engine)];
int ready;  // 0: there is none, 1: somebody makes it, 2: it is there

[[gnu::noinline]] void create_engine() {
    int expected = 0;
    constexpr int kOrder = __ATOMIC_ACQUIRE;
    if (__atomic_compare_exchange_n(&ready, &expected, 1, false, kOrder, kOrder)) {
        new (storage) Engine;
        watch_forks();
        watch_forks_while_building();
        __atomic_store_n(&ready, 2, __ATOMIC_RELEASE);
    }
    while (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) != 2) (void)sys::pause(10'000);
}

int list_object(dl_phdr_info *info, size_t, void *data) {
    auto *visit = static_cast<Visit *>(data);
    // Called under one lock: the counters are the same each time.
    const bool lasting = visit->listed && info->dlpi_subs == visit->listed_subs;
    visit->adds = info->dlpi_adds;
    visit->subs = info->dlpi_subs;
    ++visit->index;
    visit->last = info->dlpi_phdr;
    if (info->dlpi_phnum == 0) return 0;
    // The executable comes first, under an empty name (glibc) or its own (musl).
    const bool main = !visit->found;
    visit->found = true;
    visit->complete = visit->complete && visit->table->list(info->dlpi_addr, info->dlpi_phdr,
                                                            info->dlpi_phnum, main, lasting);
    return 0;
}

int look_for_new(dl_phdr_info *info, size_t, void *data) {
    auto *visit = static_cast<Visit *>(data);
    if (!visit->changed) {
        if (info->dlpi_adds == visit->adds && info->dlpi_subs == visit->subs) return 1;
        visit->changed = true;
        visit->found = info->dlpi_subs != visit->subs;
        visit->adds = info->dlpi_adds;
        visit->subs = info->dlpi_subs;
    }
    // New objects are appended, so those of the last look need none, unless the order changed: with
    // several namespaces (dlmopen) an object may come in between.
    const size_t index = visit->index++;
    if (index < visit->known) {
        const bool last = index + 1 == visit->known;
        if (last && info->dlpi_phdr != visit->last) visit->found = true;
        return visit->found;
    }
    visit->last = info->dlpi_phdr;
    // Without a table, for who has not the lock: what may be new is asked again with it.
    if (may_be_coverable(info->dlpi_addr, info->dlpi_phdr, info->dlpi_phnum) &&
        (!visit->table || !visit->table->knows(info->dlpi_addr, info->dlpi_phdr, info->dlpi_phnum)))
        visit->found = true;
    return visit->found;
}

// dl_iterate_phdr holds the lock under which dlclose unmaps: an object that was listed is still
// there if nothing was removed since.
int finish_if_unchanged(dl_phdr_info *info, size_t, void *data) {
    auto *visit = static_cast<Visit *>(data);
    visit->complete = info->dlpi_subs == visit->subs;
    if (!visit->complete) return 1;
    if (!visit->restores)
        visit->table->commit();
    else if (visit->only_small)
        visit->table->restore_small();
    else
        visit->table->restore(visit->keep);
    return 1;
}

constexpr int kTries = 3;

}  // namespace

Engine::Engine() {
    table_.use_bti(getauxval(AT_HWCAP2) & HWCAP2_BTI);
    // What would stand in the way of the swapping, in the middle of it.
    table_.keep_out(reinterpret_cast<u64>(&storage));
    table_.keep_out(getauxval(AT_BASE));
}

Engine &Engine::get() {
    if (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) != 2) create_engine();
    return *std::launder(reinterpret_cast<Engine *>(storage));
}

// Brings the table up to date with what is loaded and mapped. Fills in visit->subs, by which a
// later step knows whether an object was unloaded since.
Outcome Engine::look(Table::Scope scope, Visit *visit) {
    *visit = {&table_, 0, 0, false, false, true, Backing::none, false, listed_, listed_subs_};
    listed_ = false;
    table_.begin_listing();
    iterate_objects(list_object, visit);
    // What an incomplete listing does not have may be loaded all the same, and swapped.
    if (!visit->complete) return {Status::no_memory, Call::none, 0};
    table_.end_listing();
    listed_ = true;
    listed_subs_ = visit->subs;
    const auto observed = table_.observe(scope);
    if (!observed.ok()) return {Status::unreadable, Call::read, observed.error()};
    return done();
}

// Daemons start as root and change their user: the store in shared memory is the present one's.
void Engine::follow_user() {
    const char *const root = shared_store(request_);
    if (!root || !starts_with(str(root), str(kSharedStore))) return;
    Cursor rest{root + length(kSharedStore), root + length(root)};
    const u64 user = rest.number(10);
    if (!rest.ok || rest.at != rest.end || user == geteuid()) return;
    Buffer<64> own;
    own.add(kSharedStore).add_decimal(geteuid());
    shared_store_ = own.add({"", 1});
    request_.shm_stores = {shared_store_.data, shared_store_.size};
}

void Engine::pass(Table::Scope scope) {
    Visit visit;
    follow_user();
    for (int i = 0; i < kTries; ++i) {
        last_ = look(scope, &visit);
        if (!last_.ok()) return;
        see(visit);
        request_.copy_time = in_passing_ ? time_for_copies(request_) : ~0ull;
        table_.prepare(request_, scope);
        iterate_objects(finish_if_unchanged, &visit);
        if (visit.complete) {
            set(&skips_, table_.can_grow() ? min(skips_, skipped_) : kNever);
            if (in_passing_) spend_time(table_.copying_time());
            return;
        }
        table_.abandon();
    }
    last_ = {Status::pending, Call::none, 0};
    set(&looked_at_, size_t{0});
}

void Engine::put_back(Backing keep, bool only_small) {
    Visit visit;
    for (int i = 0; i < kTries; ++i) {
        last_ = look(Table::Scope::candidates, &visit);
        if (!last_.ok()) return;
        visit.keep = keep;
        visit.restores = true;
        visit.only_small = only_small;
        iterate_objects(finish_if_unchanged, &visit);
        if (visit.complete) return;
    }
    last_ = {Status::pending, Call::none, 0};
}

long Engine::remap(const Request &request, Table::Scope scope) {
    const Locked locked;
    if (!locked.ok()) return kBusy;
    const u64 began = sys::now();
    __atomic_store_n(&filters_, find_filters(), __ATOMIC_RELAXED);
    stand(Status::ok);
    const bool other_plan = request.inward != request_.inward;
    Request wanted = request;
    if (!keep_texts(&wanted, &texts_)) return -1;
    request_ = wanted;
    machine_ = check_machine(static_cast<u64>(sysconf(_SC_PAGESIZE)));
    if (aside() != Status::ok) machine_ = {aside(), Call::none, 0};
    set(&able_, machine_.ok());
    set(&started_, true);
    set(&enabled_, true);
    reasons_.clear();
    if (machine_.ok()) {
        table_.plan_inward(request_.inward);
        if (other_plan)
            put_back(Backing::none);
        else if (request_.backing != Backing::automatic && scope != Table::Scope::fresh)
            put_back(request_.backing);
        const bool asked = scope != Table::Scope::fresh;
        in_passing_ = !asked && request_.backing == Backing::automatic;
        if (asked && table_.find_small()) put_back(Backing::none, true);
        table_.mend_patiently(asked);
        pass(scope);
        table_.mend_patiently(false);
    }
    elapsed_ns_ += sys::since(began);
    return static_cast<long>(table_.missing());
}

ErrorOr<void> Engine::probe(int fd, u64 offset, u64 size, bool collapse, u64 *bytes) {
    const Locked locked;
    if (!locked.ok()) return Error{EAGAIN};
    return probe_huge(fd, offset, size, collapse, bytes);
}

size_t Engine::retry(bool fall_back) {
    const Locked locked;
    if (!locked.ok() || !watching()) return 0;
    const u64 began = sys::now();
    const Building before = request_.building;
    if (fall_back) request_.building = Building::never;
    pass(Table::Scope::waiting);
    request_.building = before;
    elapsed_ns_ += sys::since(began);
    return table_.missing();
}

void Engine::see(const Visit &visit) {
    set(&looked_at_, visit.index);
    set(&last_looked_at_, visit.last);
    set(&seen_adds_, visit.adds);
    set(&seen_subs_, visit.subs);
}

// Of what see() noted, as a visit that looks for what is new. Where another thread notes something
// meanwhile, the parts may not fit each other: then more is looked at than need be, here or at the
// next import.
Visit Engine::seen(Table *table) const {
    const auto load = [](auto *from) { return __atomic_load_n(from, __ATOMIC_RELAXED); };
    Visit visit = {table, load(&seen_adds_), load(&seen_subs_), false, false, true, Backing::none};
    visit.known = load(&looked_at_);
    visit.last = load(&last_looked_at_);
    return visit;
}

bool Engine::stale(bool loaded) {
    if (!watching() || (!loaded && linker_lock_may_be_lost())) return false;
    Visit visit = seen(nullptr);
    if (!iterate_unlocked(look_for_new, &visit)) return false;
    if (visit.changed && !visit.found) see(visit);
    if (visit.found || !loaded) return visit.found;
    // Only in a program that has just opened a file: one that locked itself up may not.
    if (__atomic_load_n(&waiting_, __ATOMIC_RELAXED)) return true;
    const u32 skips = __atomic_load_n(&skips_, __ATOMIC_RELAXED);
    if (skips && skips != kNever) set(&skips_, skips - 1);
    return skips == 0;
}

// The more the program itself has done meanwhile, the more may be built.
void Engine::note_waiting() {
    set(&waiting_, table_.has_promised() && will_have_time(request_));
}

// Finds out whether a library that was loaded before is used by now in places of which the store
// has nothing. Looks as often as the program has run twice as long: a dozen times in its life.
bool Engine::look_beyond() {
    if (skips_ == kNever) return false;
    skipped_ = min(2 * skipped_ + 1, kMostSkipped);
    set(&skips_, skipped_);
    const u64 now = sys::processor_time();
    // In a forked child processor time begins anew.
    if (now >= looks_at_ / 2 && now < looks_at_) return false;
    looks_at_ = 2 * now;
    return table_.find_used_beyond();
}

bool Engine::poll(size_t *missing) {
    *missing = 0;
    // Before any call that plain Python has not just made.
    const u64 filters = read_filters();
    if (filters == kUnknownFilters || filters != __atomic_load_n(&filters_, __ATOMIC_RELAXED)) {
        const Status why = filters == kUnknownFilters ? Status::unreadable : Status::filtered;
        stand(why);
        return false;
    }
    // A thread that imports inside a callback of dl_iterate_phdr must not wait here.
    const Locked locked(Locked::Wait::never);
    if (!locked.ok() || !watching()) return false;
    const u64 began = sys::now();
    Visit visit = seen(&table_);
    iterate_objects(look_for_new, &visit);
    // What was unloaded may have taken swapped pages with it, and left its place to another.
    const bool unloaded = visit.subs != __atomic_load_n(&seen_subs_, __ATOMIC_RELAXED);
    if (visit.found) visit.index = 0;
    if (visit.changed) see(visit);
    // What others were building at the last look may be there by now.
    const bool waited = __atomic_load_n(&waiting_, __ATOMIC_RELAXED);
    const bool again = (visit.found || waited) && table_.has_promised() && has_time(request_);
    in_passing_ = request_.backing == Backing::automatic;
    using Scope = Table::Scope;
    const Scope more = again ? Scope::waiting : Scope::fresh;
    const bool passes = visit.found || again;
    if (passes) pass(unloaded ? Scope::candidates : more);
    if (again) {
        table_.settle_promises();
        spend_time(sys::since(began));
    }
    const bool used = look_beyond();
    *missing = passes || used ? table_.missing() : 0;
    note_waiting();
    elapsed_ns_ += sys::since(began);
    return passes;
}

bool Engine::restore() {
    const Locked locked;
    if (!locked.ok()) return false;
    set(&enabled_, false);
    put_back(Backing::none);
    return true;
}

bool Engine::started() const {
    return __atomic_load_n(&started_, __ATOMIC_RELAXED);
}

Outcome Engine::look_at_all() {
    Visit visit;
    return look(Table::Scope::all, &visit);
}

}  // namespace pht
