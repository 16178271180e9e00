// What a process does about entries that its stores lack: builds them now, or says why not.
//
// Synchronously, as .pyc files are written; no thread, no process, no fsync. What a machine cannot
// do is found out once and remembered in the store.
#pragma once

#include "entry.h"
#include "status.h"

namespace pht {

// The originals that wait for an entry.
class WantedList {
public:
    [[nodiscard]] bool add(Str path, u64 bias, const sys::FileIdentity &file);
    void clear();
    size_t size() const { return items_.size(); }
    Wanted at(size_t i) const {
        return {text_.data() + items_[i].path, items_[i].bias, items_[i].file};
    }
    bool is_done(size_t i) const { return items_[i].done; }
    void set_done(size_t i) { items_[i].done = true; }
    bool all_done() const;

private:
    struct Item {
        size_t path;
        u64 bias;
        sys::FileIdentity file;
        bool done;
    };
    MappedArray<Item> items_;
    MappedArray<char> text_;
};

// What the settings allow.
struct BuildRules {
    Backing backing = Backing::automatic;  // whose stores are built into
    Building building = Building::automatic;
    const char *disk = nullptr;  // the user's store; nullptr: none
    const char *shared_memory = nullptr;
    u64 disk_limit = 0, shared_memory_limit = 0;  // bytes they may hold
    u64 build_limit = 0;                          // bytes this process may copy
};

// Who asked. None of these is called with a lock of the process held.
struct BuildHost {
    void *context;
    // Whether to stop: the program wants to go on. Called between two entries.
    bool (*stops)(void *context);
    // Another process may have built some: looks again, and lists what still waits.
    void (*look_again)(void *context, WantedList *wanted);
    // A sentence for statistics: why something was not built.
    void (*tell)(void *context, Str reason);
};

// Builds what is wanted. False where the host stopped it.
bool build_missing(const BuildRules &rules, const BuildHost &host, WantedList *wanted);

}  // namespace pht
