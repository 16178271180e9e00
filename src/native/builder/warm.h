// Entries made ahead of their use: on disk for good, and on 2 MiB pages at the next fault.
#pragma once

#include "builder/entry.h"

namespace pht {

struct Made {
    enum class Status : u8 {
        built,
        promoted,  // it was there, and is now on disk for good
        present,
        unneeded,  // the kernel takes the file itself
        refused,   // `problem` says why
    };
    Status status = Status::refused;
    Trouble problem;
    bool small = false;   // the kernel gave it small pages
    bool looked = false;  // whether `huge` was looked at
    u64 size = 0;         // of the copy, bytes
    u64 written = 0;      // 0 too where a copy of the same content was there
    u64 huge = 0;         // of the copy, in 2 MiB pages now
    KeyText key;          // the name of its record, where it has one
};
inline constexpr const char *kMadeNames[] = {"built", "promoted", "present", "unneeded", "refused"};

// Makes sure that an open store has a lasting entry of one file for one load bias. What is there
// already is not written again. Takes the lock for this object only, so that others get their turn.
void warm_entry(StoreWriter &writer, const Wanted &wanted, Keep &keep, Made *made);

// What is wrong with the copy of an entry; ok where the core would map it as far as can be told
// without comparing content.
Trouble why_not_mapped(const StoreWriter &writer, const RecordView &record);

// Makes what was added to a copy in shared memory huge, if only in part.
ErrorOr<void> collapse_copy(const StoreWriter &writer, const Added &added);

// Takes back what was added to an entry, where the kernel does not collapse it: the rest goes on
// serving, and nothing is added for a day, or for a minute (`brief`). False where that is all.
bool take_back(const StoreWriter &writer, const Added &added, bool brief);

// How often the lock is tried where somebody asked for what is written: ten seconds.
inline constexpr unsigned kPatientTries = 2500;

}  // namespace pht
