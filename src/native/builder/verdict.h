// What a store's file system does with a file written in steps of 2 MiB: tried, then remembered for
// this kernel and file system. Of shared memory: whether the kernel collapses it; what is
// remembered there ends with the boot.
#pragma once

#include "builder/writer.h"

namespace pht {

enum class Verdict : u8 {
    unknown,
    written,  // huge right after writing; in shared memory once it is collapsed
    evicted,  // only after write-back and eviction
    never,
    collapsed,  // once it was written back and somebody collapsed it, with nobody writing
};
inline constexpr const char *kVerdictNames[] = {"unknown", "written", "evicted", "never",
                                                "collapsed"};

// What was found out; unknown where it was not yet. Of what was not huge for a day, which a moment
// without free 2 MiB may have caused.
Verdict remembered_verdict(const StoreWriter &writer);

Trouble remember(const StoreWriter &writer, Verdict verdict);

// As remembered, else tried with a small file. The lock must be held.
Trouble judge(const StoreWriter &writer, Verdict *verdict);

// What came of a copy that was just written there: written where it is huge, else unknown.
Verdict judge_copy(int copy, u64 offset);

// Whether what is built in a start is huge in later ones.
constexpr bool serves_starts(Verdict verdict) {
    return verdict == Verdict::written || verdict == Verdict::collapsed;
}

// Writes 4 MiB to an empty file as a copy is written, and says what became of it. Whether it could
// be collapsed only who closes it can tell.
Trouble try_file(int fd, Verdict *verdict);

// The same with 2 MiB in shared memory; unknown where there were none at that moment.
Trouble try_memory(int fd, Verdict *verdict);

// Whether huge pages are disabled for this process (prctl(PR_SET_THP_DISABLE)): then what it sees
// says nothing about the machine.
bool has_huge_pages_disabled();

// Whether the kernel may have refused this process what it grants to others: then its answer is not
// the machine's. A seccomp filter answers with whatever errno it likes.
bool is_restricted();

}  // namespace pht
