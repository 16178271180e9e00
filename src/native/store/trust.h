// Which directories and files of a store are trusted. It holds code that will be executed, so
// whoever can write there can do what this user can.
#pragma once

#include "kernel/sys.h"
#include "words/status.h"

namespace pht {

// An entry that is of no use as it is; writing it anew helps.
constexpr Outcome bad_entry(Status status) {
    return {status, Call::none, 0, true};
}

// That there is no store, or nothing in it: not that anything is wrong.
constexpr bool says_little(const Outcome &outcome) {
    return outcome.status == Status::no_store || outcome.status == Status::no_entry;
}

inline constexpr size_t kPathLimit = 4096, kUsualPath = 256;

// A directory that only we or root can put names into. One that is writable by others is as good
// only `above` the store, when it is sticky and root's, as /tmp and /dev/shm are.
bool trusted_directory(const sys::FileIdentity &file, bool above);

// Whether this user may have a store at all; see user() in trust.cpp.
bool is_somebody();

// Whether what this user makes in a directory is there for the user: in one of the user's own, or
// where everybody has some. A daemon that kept root's capabilities may write to root's, too, which
// root could not trust any more.
bool is_for_user(int directory);

// Opens a store's root, an absolute path: every step of the way must be ours or root's, and
// writable by nobody else. With `above` it is a directory in which the store, or what leads to it,
// is to be made. The descriptor (O_PATH), or -1 with the outcome.
int open_root(const char *root, Outcome *outcome, bool above = false);

// Opens a directory below a trusted one, likewise.
int open_directory(int parent, const char *name, Outcome *outcome);

// Opens a regular file below a trusted directory, that nobody else can write, for reading.
// With `quietly` its access time stays, where the file is ours: looking through a store is no use.
int open_file(int parent, const char *name, sys::FileIdentity *file, Outcome *outcome,
              bool quietly = false);

}  // namespace pht
