// What a process does about entries that its stores lack: builds them now, or says why not.
//
// Synchronously, as .pyc files are written; no thread, no process, no fsync. What a machine cannot
// do is found out once and remembered in the store.
#pragma once

#include "builder/entry.h"
#include "words/request.h"
#include "words/status.h"

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

// Builds what is wanted into the stores of the request. False where the host stopped it.
bool build_missing(const Request &request, const BuildHost &host, WantedList *wanted);

}  // namespace pht
