// A store's directories, open for whoever writes there, and the writer's lock.
//
// Layout below the root, all of it owned by the user (or root) and writable by nobody else:
//   v1/index/<key>                  a record, or a note why there is none
//   v1/objects/<name>/<basename>    a copy
//   v1/tmp/                         what is being written
//   v1/lock                         held by whoever writes; whatever is in tmp then is a killed
//                                   builder's and goes
//   v1/verdict                      what this file system does, found out once
#pragma once

#include "builder/directory.h"
#include "builder/trouble.h"
#include "kernel/descriptor.h"

namespace pht {

// Which store, and how it is written to.
struct StoreSpec {
    const char *root = nullptr;  // absolute, NUL-terminated
    u64 limit = 0;               // bytes its copies may take
    bool shared_memory = false;  // on tmpfs: copies are collapsed
    // Of that: the root of the store on disk which is asked first; null where there is none.
    const char *better = nullptr;
    bool for_everyone = false;  // the system's: others read it
    bool for_images = false;    // container images keep it: its entries are found by content, too
    bool limit_is_own = false;  // the limit is this process's: another may have room
    bool evicts_used = false;   // also what was used lately goes for others

    u32 directory_mode() const { return for_everyone ? 0755 : 0700; }
    u32 record_mode() const { return for_everyone ? 0644 : 0600; }
    u32 copy_mode() const { return for_everyone ? 0444 : 0400; }
};

inline constexpr u64 kLockPause = 4'000'000;  // nanoseconds between two tries of the lock

class StoreWriter : NonCopyable {
public:
    explicit StoreWriter(const StoreSpec &spec) : spec_(spec) {}
    ~StoreWriter() { close(); }

    // Opens the directories, and makes those that are missing if told so: by descriptor, step by
    // step, each checked for whom it belongs to. Kind gone where there is none.
    Trouble open(bool make);

    // Takes the writer's lock and removes what killed builders left. Tries so many times, 4 ms
    // apart, and no longer than until a signal handler runs. *waited: somebody else had it.
    Trouble lock(unsigned tries, bool *waited, bool sweep = true);
    void unlock();

    const StoreSpec &spec() const { return spec_; }
    int version() const { return version_; }
    int index() const { return index_; }
    int objects() const { return objects_; }
    int tmp() const { return tmp_; }
    void evict_used() { spec_.evicts_used = true; }
    // Of this process alone, where it is less than the store's: another may have room.
    void limit_to(u64 bytes) {
        spec_.limit_is_own = bytes < spec_.limit;
        spec_.limit = min(spec_.limit, bytes);
    }

    // Puts a small file in place of whatever has that name in a directory of this store, with this
    // modification time unless it is 0.
    Trouble write_file(int directory, const char *name, const void *data, size_t size, u32 mode,
                       bool durable, u64 time = 0) const;

    // Before the process is forked, and in the child: there the descriptors of its parent's builder
    // are of no use, and would hold its lock.
    static void prepare_fork();
    static void forget_in_child();

    // Removes the store with all in it, what leads to the copies first; the directory of it only
    // where nothing else is in it.
    Trouble remove_all() const;

    // False in a child that was forked while this was open: nothing of it may be used there.
    bool is_of_this_process() const;

    // Removes what killed builders left; the lock must be held. Returns the bytes freed.
    u64 sweep() const;

private:
    void close();
    Trouble open_lock(int *out) const;
    bool is_still_there() const;

    StoreSpec spec_;
    bool made_ = false;
    u64 generation_ = 0;
    int root_ = -1, version_ = -1, index_ = -1, objects_ = -1, tmp_ = -1, lock_ = -1;
};

// A descriptor of what is being written: a forked child would keep it, and the disk that it takes,
// for as long as it lives.
class Written : NonCopyable {
public:
    Written() = default;
    explicit Written(ErrorOr<int> fd) { take(fd); }
    ~Written();
    void take(ErrorOr<int> fd);  // once
    operator int() const { return fd_; }

private:
    int fd_ = -1;
};

// A lock that is given back at the end of its scope.
class Held : NonCopyable {
public:
    explicit Held(StoreWriter &writer) : writer_(writer) {}
    ~Held() { writer_.unlock(); }

private:
    StoreWriter &writer_;
};

}  // namespace pht
