// What huge text is made of, and which missing entries of the stores are built: names and order.
#pragma once

#include "kernel/types.h"

namespace pht {

// The best first: what costs no memory, what all processes share, what one process has for itself.
enum class Backing : u8 { none, file, store, shm, memfd, thp, hugetlb, automatic };
inline constexpr const char *kBackingNames[] = {"none",  "file", "store",   "shm",
                                                "memfd", "thp",  "hugetlb", "auto"};
inline constexpr int kBackings = 7;  // those a region can have, `none` included

constexpr const char *name_of(Backing backing) {
    return kBackingNames[static_cast<int>(backing)];
}

// The rungs of Backing::automatic, in the order they are tried. The original file itself would be
// best, but asking the kernel for it at every start costs more than all the rest: the record of an
// entry says which kernel refused it. Where there is no entry, or another kernel was asked, this
// one is asked first.
inline constexpr Backing kLadder[] = {Backing::store, Backing::file, Backing::shm, Backing::memfd,
                                      Backing::thp};

constexpr bool is_private(Backing backing) {
    return backing == Backing::memfd || backing == Backing::thp || backing == Backing::hugetlb;
}
constexpr bool is_stored(Backing backing) {
    return backing == Backing::store || backing == Backing::shm;
}

// Which missing entries of the stores a region waits for, because somebody is to build them.
enum class Building : u8 { never, automatic, always };

}  // namespace pht
