#include "builder/missing.h"

#include "builder/build_time.h"
#include "builder/entry.h"
#include "builder/itself.h"
#include "builder/verdict.h"
#include "builder/warm.h"
#include "kernel/scratch.h"
#include "limits/memory.h"

namespace pht {

namespace {

constexpr u64 kSmallFiles = 8 << 20;     // what trying a file system and writing records takes
constexpr u64 kJudgesItself = 16 << 20;  // up to that the first copy tells what its disk can do
constexpr u64 kPadding = 16 << 20;       // a copy is padded to 2 MiB here and there

// How often this process still tries the lock of a store in which others build, so that workers
// which are started together on a new machine run from the one copy and not each from its own.
unsigned patience = 25;

enum class End : u8 { done, next_store, stopped };

class Builder {
public:
    Builder(const Request &request, const BuildHost &host, WantedList *wanted, StoreWriter &writer)
        : request_(request), host_(host), wanted_(*wanted), writer_(writer) {}

    End build();

private:
    using State = WantedList::State;
    End build_now();
    bool build_all(bool with_rest);
    void settle_trials();
    void tell(const Trouble &problem) { tell("", problem.text.data); }
    void tell(const char *path, const char *reason);
    Trouble lock(bool *waited);
    void note(const Wanted &wanted, const char *reason, bool brief);
    bool fits_here();
    void unfit(const char *reason, bool brief = false);
    bool memory_fits();
    void build_one(size_t which);
    void limit_shared_memory();
    void explain(const Wanted &wanted, const Trouble &problem);
    bool judge_by(const Added &added);
    bool collapse(const Wanted &wanted, const Added &added);

    const Request &request_;
    const BuildHost &host_;
    WantedList &wanted_;
    StoreWriter &writer_;
    Deadline deadline_;
    Boot boot_;
    Keep keep_;
    Verdict verdict_ = Verdict::unknown;
    bool unfit_ = false;
};

void Builder::tell(const char *path, const char *reason) {
    Buffer<1024> text;
    text.add("store ").add(writer_.spec().root).add(": ");
    if (*path) text.add(path).add(": ");
    text.add(reason);
    host_.tell(host_.context, {text.data, text.size});
}

void Builder::note(const Wanted &wanted, const char *reason, bool brief) {
    int fd;
    Wanted any = wanted;
    any.file = {};
    sys::FileIdentity file;
    const bool there = open_original(any, &fd, &file).ok();
    const Descriptor opened(fd);
    if (there)
        write_note(writer_, record_key(file, wanted.bias), str(wanted.path), str(reason), brief,
                   boot_);
}

Trouble Builder::lock(bool *waited) {
    const bool always = request_.building == Building::always;
    // No longer than this process may build.
    const u64 left = (deadline_.at - min(deadline_.at, sys::now())) / kLockPause;
    const auto tries = static_cast<unsigned>(min<u64>(patience, left));
    const Trouble problem = writer_.lock(always ? kPatientTries : tries, waited);
    if (*waited && !always) patience = 0;
    return problem;
}

void Builder::unfit(const char *reason, bool brief) {
    unfit_ = true;
    tell("", reason);
    for (size_t i = 0; i < wanted_.size(); ++i)
        if (wanted_.state(i) == State::waiting) note(wanted_.at(i), reason, brief);
}

constexpr const char *kNeverHuge = "this file system gives no huge pages to new files";
constexpr const char *kHugeWhenRead =
    "this file system gives no huge pages to new files; pyhugetext warm can fill it";

constexpr const char *kNotCollapsed = "the kernel does not collapse shared memory";

// Where the kernel has no MADV_COLLAPSE no copy is made to find that out with.
bool Builder::memory_fits() {
    verdict_ = remembered_verdict(writer_);
    if (verdict_ == Verdict::unknown && !knows_collapse()) {
        const Trouble problem = judge(writer_, &verdict_);
        if (!problem.ok()) {
            tell(problem);
            return false;
        }
    }
    if (verdict_ != Verdict::never) return true;
    unfit(failed_call(kNotCollapsed, Error{EINVAL}).text.data, is_restricted());
    return false;
}

// Whether what is built into this store would run from huge pages, as far as is known.
bool Builder::fits_here() {
    sys::FileSystem system;
    if (sys::file_system_of(writer_.version(), &system).ok() && (system.flags & ST_NOEXEC)) {
        unfit("this file system is mounted noexec");
        return false;
    }
    if (writer_.spec().shared_memory) return memory_fits();
    verdict_ = remembered_verdict(writer_);
    if (verdict_ == Verdict::unknown && has_huge_pages_disabled()) {
        // The verdict is for every process, and this one cannot tell.
        tell("", "huge pages are disabled for this process (prctl)");
        return false;
    }
    if (verdict_ == Verdict::unknown && wanted_.size() && wanted_.at(0).file.size > kJudgesItself) {
        const Trouble problem = judge(writer_, &verdict_);
        if (!problem.ok()) {
            tell(problem);
            return false;
        }
    }
    if (verdict_ == Verdict::evicted || verdict_ == Verdict::never) {
        unfit(verdict_ == Verdict::evicted ? kHugeWhenRead : kNeverHuge);
        return false;
    }
    return true;
}

// The first copy in a new store tells what its file system does, and is of no use where that is
// nothing.
bool Builder::judge_by(const Added &added) {
    if (writer_.spec().shared_memory || verdict_ != Verdict::unknown || added.texts.empty())
        return true;
    sys::FileIdentity file;
    Trouble problem;
    const auto fd = open_copy_at(writer_, added.path.data, &file, &problem);
    if (!fd.ok()) return true;
    const Descriptor copy(fd);
    verdict_ = judge_copy(copy, added.texts[0].offset);
    if (verdict_ == Verdict::written)
        problem = remember(writer_, verdict_);
    else
        problem = judge(writer_, &verdict_);
    if (!problem.ok()) tell(problem);
    if (problem.ok() && serves_starts(verdict_)) return true;
    drop_record(writer_, added.key.data, boot_);
    if (problem.ok()) unfit(verdict_ == Verdict::evicted ? kHugeWhenRead : kNeverHuge);
    unfit_ = true;
    return false;
}

// What can be collapsed once it is on disk is sent there, and nothing is waited for: later starts
// collapse it, see store/mend.h.
void begin_writing(const StoreWriter &writer, const Added &added) {
    sys::FileIdentity file;
    Trouble problem;
    const Descriptor copy(open_copy_at(writer, added.path.data, &file, &problem));
    if (copy.ok()) (void)sys::start_writing(copy, 0, 0);
}

// False where the kernel gives it no huge pages: of no use, and paid for in memory.
bool Builder::collapse(const Wanted &wanted, const Added &added) {
    if (!writer_.spec().shared_memory) {
        if (verdict_ == Verdict::collapsed) begin_writing(writer_, added);
        return true;
    }
    const auto result = collapse_copy(writer_, added);
    if (result.ok()) return true;
    const Trouble problem = failed_call(kNotCollapsed, result);
    const bool passes = result.error() == EAGAIN || result.error() == EBUSY ||
                        result.error() == ENOMEM || result.error() == EINTR || is_restricted();
    tell(wanted.path, problem.text.data);
    if (!take_back(writer_, added, passes)) drop_record(writer_, added.key.data, boot_);
    note(wanted, problem.text.data, passes);
    // Nor any other one, mostly: then nobody writes one for nothing again.
    if (!passes && judge(writer_, &verdict_).ok() && verdict_ == Verdict::never)
        unfit(problem.text.data);
    return false;
}

// What is in shared memory cannot be reclaimed but by swapping.
void Builder::limit_shared_memory() {
    MemoryRoom room;
    memory_room(&room);
    const u64 configured = request_.shm_limit;
    writer_.limit_to(shared_allowance(room, configured, used_bytes(writer_)));
}

// Remembers what would go wrong again.
void Builder::explain(const Wanted &wanted, const Trouble &problem) {
    using Kind = Trouble::Kind;
    if (problem.kind == Kind::refused || problem.kind == Kind::changed) {
        Buffer<1024> text;
        text.add(wanted.path).add(": ").add(problem.text.data);
        host_.tell(host_.context, {text.data, text.size});
        note(wanted, problem.text.data, problem.kind == Kind::changed);
        return;
    }
    tell(wanted.path, problem.text.data);
    if (problem.is_of_this_process()) return;
    note(wanted, problem.text.data, problem.kind == Kind::full && writer_.spec().limit_is_own);
}

constexpr const char *kNoRoom =
    "the control group's limit, or the machine's memory, leaves too little for a copy in shared "
    "memory";

void Builder::build_one(size_t which) {
    Wanted wanted = wanted_.at(which);
    if (wanted.itself == Itself::refused && is_restricted()) wanted.itself = Itself::unknown;
    if (has_too_many_biases(writer_, wanted.file, wanted.bias))
        return tell(wanted.path, "it is loaded at ever other addresses; its entries are bounded");
    // Until what is written counts as taken.
    MemoryTurn turn;
    if (writer_.spec().shared_memory) {
        // What does not fit into the store at all, make_room() refuses; of the rest it evicts what
        // lets the new one in.
        const u64 limit = writer_.spec().limit;
        const u64 text = wanted.whole ? wanted.file.size : wanted.page_count * kHugeSize + kPadding;
        const u64 bytes = min(min(wanted.file.size, text) + kPadding / 8, limit);
        const u64 present = min(used_bytes(writer_), limit - bytes);
        const Outcome allowed = turn.take_shared(bytes, request_.shm_limit, present);
        if (!allowed.ok()) return tell(wanted.path, kNoRoom);
    }
    Added added;
    const Trouble problem = add_entry(writer_, wanted, false, keep_, deadline_, boot_, &added);
    // What there is of it serves; another store is not asked for the rest.
    if (added.serves) wanted_.set(which, State::done);
    if (!problem.ok()) return explain(wanted, problem);
    if (judge_by(added) && collapse(wanted, added))
        wanted_.set(which, added.whole ? State::done : State::promised);
}

End Builder::build() {
    begin_to_build(request_, &deadline_);
    const End end = build_now();
    end_to_build(deadline_);
    return end;
}

End Builder::build_now() {
    Trouble problem = writer_.open(true);
    if (!problem.ok()) {
        tell(problem);
        return problem.lacks_descriptors() ? End::done : End::next_store;
    }
    bool waited;
    problem = lock(&waited);
    if (problem.kind == Trouble::Kind::busy || problem.kind == Trouble::Kind::interrupted) {
        // The other process builds it. A second copy in shared memory would be one too many.
        host_.tell(host_.context, {problem.text.data, problem.text.size});
        wanted_.promise_rest();
        return End::done;
    }
    if (!problem.ok()) {
        tell(problem);
        return problem.lacks_descriptors() ? End::done : End::next_store;
    }
    const Held held(writer_);
    if (writer_.spec().shared_memory) limit_shared_memory();
    if (waited) host_.look_again(host_.context, &wanted_);
    settle_trials();
    if (!wanted_.any(State::waiting)) return End::done;
    if (!fits_here()) return End::next_store;
    if (!build_all(false)) return End::stopped;
    // What is not urgent has time until nothing else is to be done.
    if (!deadline_.urgent && !build_all(true)) return End::stopped;
    return wanted_.any(State::waiting) ? End::next_store : End::done;
}

// Where nothing is to be built, whatever this store's file system does.
void Builder::settle_trials() {
    for (size_t i = 0; i < wanted_.size(); ++i) {
        const Wanted wanted = wanted_.at(i);
        if (wanted.itself != Itself::taken && wanted.itself != Itself::to_note) continue;
        settle_trial(writer_, wanted, boot_);
        wanted_.set(i, State::done);
    }
}

// False where it was stopped. Looking at one costs something, too: only the first is looked at
// whatever the time.
bool Builder::build_all(bool with_rest) {
    deadline_.with_rest = with_rest;
    bool any = false;
    for (size_t i = 0; i < wanted_.size() && !unfit_; ++i) {
        if (wanted_.state(i) != (with_rest ? State::promised : State::waiting)) continue;
        const bool stops = host_.stops(host_.context);
        if (stops || !writer_.is_of_this_process()) return false;
        if (any && deadline_.is_past()) break;
        any = true;
        build_one(i);
    }
    if (deadline_.is_past()) wanted_.promise_rest();
    return true;
}

// Whether the home that a store is to be in is there. It is not ours to make: it may be meant not
// to exist, or not be mounted yet.
bool has_home(const char *root, const BuildHost &host) {
    const Str path = str(root);
    if (!ends_with(path, str(kBelowHome))) return true;
    MappedArray<char> home;
    const size_t size = path.size - length(kBelowHome);
    if (!home.append(path.data, size) || (size == 0 && !home.push('/')) || !home.push('\0'))
        return false;
    sys::FileIdentity file;
    if (sys::identify_at(AT_FDCWD, home.data(), 0, &file).ok() && (file.mode & S_IFMT) == S_IFDIR)
        return true;
    Buffer<1024> text;
    text.add("store ").add(root).add(": there is no ").add(home.data());
    host.tell(host.context, {text.data, text.size});
    return false;
}

// Whether the place of the store in shared memory is memory: where /dev/shm is missing, or an
// ordinary directory, nothing is made.
bool has_shared_memory(const char *root, const BuildHost &host) {
    MappedArray<char> parent;
    const Str path = str(root), name = basename(path);
    if (path.size <= name.size + 1 || !parent.append(path.data, path.size - name.size - 1) ||
        !parent.push('\0'))
        return false;
    const auto type = sys::file_system(parent.data());
    if (type.ok() && type.value() == TMPFS_MAGIC) return true;
    Buffer<1024> text;
    text.add("store ").add(root).add(": ").add(parent.data()).add(" is no tmpfs");
    host.tell(host.context, {text.data, text.size});
    return false;
}

End build_into(const StoreSpec &spec, const Request &request, const BuildHost &host,
               WantedList *wanted) {
    StoreWriter writer(spec);
    Builder builder(request, host, wanted, writer);
    return builder.build();
}

}  // namespace

bool build_missing(const Request &request, const BuildHost &host, WantedList *wanted) {
    // Beyond that a write raises SIGXFSZ, which kills where the program does not ignore it.
    const u64 ceiling = sys::resource_limit(RLIMIT_FSIZE, sys::kUnlimited);
    if (ceiling < kSmallFiles) {
        Buffer<96> text;
        text.add("RLIMIT_FSIZE of ").add_decimal(ceiling).add(" bytes is too small for a store");
        host.tell(host.context, {text.data, text.size});
        return true;
    }
    StoreSpec spec;
    End end = End::next_store;
    const char *const disk = user_store(request), *const memory = shared_store(request);
    if (disk && request.backing != Backing::shm && has_home(disk, host)) {
        spec.root = disk;
        spec.limit = request.store_limit;
        end = build_into(spec, request, host, wanted);
    }
    if (end == End::next_store && memory && request.backing != Backing::store &&
        has_shared_memory(memory, host)) {
        wanted->leave_disk_only();
        if (!wanted->any(WantedList::State::waiting)) return true;
        spec = {};
        spec.root = memory;
        spec.shared_memory = true;
        spec.limit = request.shm_limit;
        end = build_into(spec, request, host, wanted);
    }
    return end != End::stopped;
}

}  // namespace pht
