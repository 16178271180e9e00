// The file that an entry is made of.
#pragma once

#include "builder/trouble.h"
#include "builder/wanted.h"

namespace pht {

// Opens the file that is wanted and makes sure that it is the one that was mapped.
Trouble open_original(const Wanted &wanted, int *fd, sys::FileIdentity *file);

// Waits until a change of it from now on would show in its times, or says why it never would.
Trouble outlast_tick(const sys::FileIdentity &file);

// The path of an open file without any symbolic link, as the kernel names it where it is mapped.
// False where that cannot be known.
bool find_real_path(int file, MappedArray<char> *path);

// Whether others may read an open file, and pass all that leads to it.
bool everyone_can_read(int file);

}  // namespace pht
