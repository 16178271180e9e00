// All the stores a pass may use.
#pragma once

#include "store/store.h"
#include "words/request.h"

namespace pht {

// The stores of one pass: on disk the system's and the user's, in shared memory the user's. Each
// is opened when it is first asked for, and its directories checked then.
class Stores {
public:
    // Where the user's store is, or would be, on overlayfs, nothing is buildable unless told so: a
    // container would build at every start into a layer that is thrown away. Nor is anything
    // where a limit of memory is near: another thread may need the room meanwhile.
    Stores(const Request &request, const Pagemap &pagemap);

    // As Store::map, from the first store of that kind that has an entry; else the outcome that
    // says most: what was wrong with an entry rather than that there is none.
    Outcome map(Backing backing, const Region &region, int original, const sys::FileIdentity &file,
                u64 target, u64 length, u64 *address) const;

private:
    // Why nothing is built; done() where it is.
    Outcome may_build() const;
    static constexpr int kMost = 4;
    struct Candidate {
        const char *root = nullptr;
        Backing backing = Backing::none;
        bool system = false;  // the first on disk: an administrator fills it, never start-up
        Store store;
        Outcome opened;
    };
    mutable Candidate candidates_[kMost];
    mutable Shared shared_;
    int count_ = 0;
    bool on_overlay_, when_cramped_;
};

}  // namespace pht
