// dlsym(3) in front of the C library's: a program that opens a library asks it for a function
// before it runs one. A tail jump, so that the real one sees the same arguments and the same return
// address: by that address it finds the caller's namespace, and what RTLD_NEXT means to it.
#include "preload/dlsym.h"

#include <dlfcn.h>
#include <errno.h>

#include "preload/loaded.h"
#include "preload/preload.h"

asm(R"(
        .text
        .p2align 4
        .globl dlsym
        .type dlsym, %function
        .hidden pyhugetext_dlsym
        .globl pyhugetext_dlsym
        .hidden pyhugetext_before_dlsym
pyhugetext_dlsym:
dlsym:
        .cfi_startproc
)"
#if defined(__x86_64__)
    R"(
        .byte 0xf3, 0x0f, 0x1e, 0xfa    # endbr64
        pushq %rdi
        .cfi_adjust_cfa_offset 8
        pushq %rsi
        .cfi_adjust_cfa_offset 8
        subq $8, %rsp
        .cfi_adjust_cfa_offset 8
        call pyhugetext_before_dlsym
        addq $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq %rsi
        .cfi_adjust_cfa_offset -8
        popq %rdi
        .cfi_adjust_cfa_offset -8
        jmp *%rax
)"
#elif defined(__aarch64__)
    R"(
        hint #34                        // bti c
        stp x29, x30, [sp, #-32]!
        .cfi_adjust_cfa_offset 32
        .cfi_offset x29, -32
        .cfi_offset x30, -24
        mov x29, sp
        stp x0, x1, [sp, #16]
        bl pyhugetext_before_dlsym
        mov x16, x0
        ldp x0, x1, [sp, #16]
        ldp x29, x30, [sp], #32
        .cfi_adjust_cfa_offset -32
        .cfi_restore x29
        .cfi_restore x30
        br x16
)"
#endif
    R"(
        .cfi_endproc
        .size dlsym, . - dlsym
)");

extern "C" [[gnu::visibility("hidden")]] void *pyhugetext_dlsym(void *handle, const char *name);

namespace pht::preload {

namespace {

using Function = void *(*)(void *, const char *);

Function real;
bool watching, looking;

void *find_nothing(void *, const char *) {
    return nullptr;
}

// Finds the next one behind this object's, as RTLD_NEXT would.
struct Search {
    const u64 own = reinterpret_cast<u64>(&pyhugetext_dlsym);
    bool behind = false;
    u64 found = 0;

    bool goes_on(u64 load_bias, const Elf64_Dyn *dynamic) {
        const u64 here = find_symbol(load_bias, dynamic, "dlsym");
        if (behind) found = here;
        behind = behind || here == own;
        return !found;
    }
};

int search_object(dl_phdr_info *info, size_t, void *data) {
    const auto *dynamic = find_dynamic(info->dlpi_addr, info->dlpi_phdr, info->dlpi_phnum);
    return !static_cast<Search *>(data)->goes_on(info->dlpi_addr, dynamic);
}

// nullptr where there is none (yet). Asks nobody if it can: who calls this may be an allocator, or
// a sanitizer, that is finding its own functions.
Function find_real() {
    Search search;
    each_loaded([&](u64 load_bias, const Elf64_Dyn *dynamic) {
        return search.goes_on(load_bias, dynamic);
    });
    // Where a program's dynamic section is read-only, it does not tell debuggers.
    if (!search.found) {
        search.behind = false;
        dl_iterate_phdr(search_object, &search);
    }
    return reinterpret_cast<Function>(search.found);
}

// One thread at a time, and not within itself: what the engine calls may be a function that some
// library puts in front of the C library's, and finds by dlsym.
void look_once() {
    if (__atomic_exchange_n(&looking, true, __ATOMIC_ACQUIRE)) return;
    if (own_engine.stale(false)) {
        const int before = errno;
        own_engine.look(kNoSignals);
        errno = before;
    }
    __atomic_store_n(&looking, false, __ATOMIC_RELEASE);
}

}  // namespace

void find_dlsym() {
    __atomic_store_n(&real, find_real(), __ATOMIC_RELAXED);
}

void watch_dlsym() {
    __atomic_store_n(&watching, true, __ATOMIC_RELEASE);
}

void forget_looking() {
    __atomic_store_n(&looking, false, __ATOMIC_RELAXED);
}

// Only for what was opened by handle: a process that locked itself up since, so that any system
// call may kill it, still asks RTLD_DEFAULT and RTLD_NEXT for functions.
extern "C" [[gnu::visibility("hidden"), gnu::used]] Function pyhugetext_before_dlsym(void *handle) {
    if (__atomic_load_n(&watching, __ATOMIC_ACQUIRE) && handle != RTLD_DEFAULT &&
        handle != RTLD_NEXT)
        look_once();
    Function found = __atomic_load_n(&real, __ATOMIC_RELAXED);
    if (found) return found;
    found = find_real();
    // So early that it could not be found it may be found later.
    if (found) __atomic_store_n(&real, found, __ATOMIC_RELAXED);
    return found ? found : find_nothing;
}

}  // namespace pht::preload
