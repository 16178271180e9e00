// A function by its name in the dynamic symbol table of a loaded object, without the dynamic
// linker's help: no lock, no allocation, and its error state as it was.
#pragma once

#include <elf.h>

#include "kernel/types.h"

namespace pht {

// The address of a function that the object exports, of whatever version; 0 where there is none.
// Must be called while the object cannot go away.
u64 find_symbol(u64 load_bias, const Elf64_Dyn *dynamic, const char *name);

// Its dynamic section; nullptr where it has none.
const Elf64_Dyn *find_dynamic(u64 load_bias, const Elf64_Phdr *headers, size_t count);

}  // namespace pht
