// What the dynamic linker has loaded, as it tells debuggers: no lock and no call, for who may be
// called before anything else is.
#pragma once

#include <link.h>
#include <sys/auxv.h>

#include "elf/symbols.h"

namespace pht::preload {

inline const r_debug *debugger_s_view() {
    const auto *const headers = reinterpret_cast<const Elf64_Phdr *>(getauxval(AT_PHDR));
    const u64 count = getauxval(AT_PHNUM);
    u64 load_bias = 0;
    for (u64 i = 0; headers && i < count; ++i)
        if (headers[i].p_type == PT_PHDR)
            load_bias = reinterpret_cast<u64>(headers) - headers[i].p_vaddr;
    const Elf64_Dyn *dynamic = headers ? find_dynamic(load_bias, headers, count) : nullptr;
    for (; dynamic && dynamic->d_tag != DT_NULL; ++dynamic)
        if (dynamic->d_tag == DT_DEBUG)
            return reinterpret_cast<const r_debug *>(dynamic->d_un.d_ptr);
    return nullptr;
}

// Calls visit(load bias, dynamic section) for each object of the program's own namespace, in the
// order in which names are looked up, until it returns false.
template <class Visit> void each_loaded(Visit visit) {
    const r_debug *const view = debugger_s_view();
    for (const link_map *at = view ? view->r_map : nullptr; at; at = at->l_next)
        if (at->l_ld && !visit(at->l_addr, at->l_ld)) return;
}

// The address of a function that some object exports; 0 where none does.
inline u64 find_loaded(const char *name) {
    u64 found = 0;
    each_loaded([&](u64 load_bias, const Elf64_Dyn *dynamic) {
        found = find_symbol(load_bias, dynamic, name);
        return !found;
    });
    return found;
}

}  // namespace pht::preload
