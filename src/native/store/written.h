// Whether a copy of this boot has reached the disk. A write-back that fails (a full thin volume, an
// I/O error) leaves pages that count as clean; once they are dropped, the copy reads as zeros, and
// whoever executes it dies. So a copy is used unseen in the first minutes only, while its pages are
// as they were written; and later by whoever sees that all of it was written back without an error,
// which the mode of its record tells from then on. The kernel tells of an error once, to whoever
// asks first: the mode of the copy tells everybody else.
#pragma once

#include "kernel/sys.h"
#include "words/status.h"

namespace pht {

// The mode of a record whose copy was seen to be written back: as others, but not to be written.
inline constexpr u32 kOwnerWrites = S_IWUSR;

// What the mode of a copy has once the kernel said that it could not be written back: it is of no
// use, even while its pages in memory are right.
inline constexpr u32 kLost = S_IXUSR;
void mark_lost(int copy, const sys::FileIdentity &file);

// Whether a file has its pages elsewhere, so that the kernel does not tell of them: those of an
// overlay file system are the lower one's.
bool is_stacked(int fd);

// Whether a copy was written so lately that it may be used unseen.
bool is_young(const sys::FileIdentity &copy);

// Whether all that was ever written of a copy is cached, as far as the kernel tells.
bool is_all_cached(int copy);

// Whether a refusal of sync_file_range(2) is its own, and tells nothing of the file: of filters,
// and where there is no such call.
bool tells_nothing(u16 error);

// done(); damaged where write-back failed; unproven where it is old and nobody has seen it: the
// builder compares it with its original then. The copy is open as `copy`.
Outcome check_written(int index, const char *name, int copy);

}  // namespace pht
