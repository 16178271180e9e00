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

    // Calls use(entry) for the entry of the first store of that kind, and of the next one where
    // that fails. The outcome that says most: what was wrong with an entry rather than that there
    // is none.
    template <class Use>
    Outcome each_entry(Backing backing, const Region &region, int original,
                       const sys::FileIdentity &file, Entry *entry, Use use) const {
        Outcome result = {Status::no_store, Call::none, 0};
        for (int i = 0; i < count_; ++i) {
            if (candidates_[i].backing != backing) continue;
            Outcome outcome = find(candidates_[i], region, original, file, entry);
            if (outcome.ok()) outcome = use(*entry);
            outcome.buildable = outcome.buildable && can_build(candidates_[i]);
            // What is there of an entry serves; the rest waits for who may build it.
            if (outcome.ok() && outcome.buildable) outcome.buildable = may_build().ok();
            if (outcome.ok()) return outcome;
            result = which_says_more(result, outcome);
        }
        return result.buildable ? allow(result) : result;
    }

    // Whether what a store in shared memory has could be made on disk, as far as can be told
    // without trying.
    bool can_be_better() const;

private:
    // Why nothing is built; done() where it is.
    Outcome may_build() const;
    static Outcome which_says_more(const Outcome &before, const Outcome &now);
    Outcome allow(const Outcome &outcome) const;
    static constexpr int kMost = 4;
    struct Candidate {
        const char *root = nullptr;
        Backing backing = Backing::none;
        bool system = false;  // the first on disk: an administrator fills it, never start-up
        Store store;
        Outcome opened;
    };
    Outcome find(Candidate &candidate, const Region &region, int original,
                 const sys::FileIdentity &file, Entry *entry) const;
    static bool can_build(const Candidate &candidate);
    mutable Candidate candidates_[kMost];
    mutable Shared shared_;
    int count_ = 0;
    bool on_overlay_, when_cramped_;
};

}  // namespace pht
