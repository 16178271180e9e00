// The proof that the core needs no C library: a program made of the core alone, linked with
// -static -nostdlib, that moves its own text to 2 MiB pages, calls functions all over it, puts it
// back and calls them again.
//
// Usage: pyhugetext_proof BACKING (its name). Prints one line per step. Exit status: 0
// when everything was right, 1 when a function gave a wrong result, 2 when nothing could be
// swapped (the line says why).

#include "text/table.h"

using namespace pht;

// Functions far apart in six megabytes of text, so that every 2 MiB page holds one.
#if defined(__x86_64__)
#define JUMP "jmp"
#else
#define JUMP "b"
#endif
#define FAR_FUNCTION(n)                                         \
    __attribute__((noinline, used)) static int far_##n(int x) { \
        asm volatile(JUMP " 1f\n .skip 1500000\n 1:");          \
        return x * 7 + n;                                       \
    }
FAR_FUNCTION(1)
FAR_FUNCTION(2)
FAR_FUNCTION(3)
FAR_FUNCTION(4)

extern "C" const Elf64_Ehdr __ehdr_start;

namespace {

void print(Str text) {
    sys::raw(__NR_write, 1, reinterpret_cast<long>(text.data), static_cast<long>(text.size));
}

void print(const char *name, u64 value) {
    char digits[24];
    size_t at = sizeof digits;
    digits[--at] = ' ';
    do {
        digits[--at] = static_cast<char>('0' + value % 10);
        value /= 10;
    } while (value);
    print(str(name));
    print({digits + at, sizeof digits - at});
}

[[noreturn]] void leave(int status) {
    for (;;) sys::raw(__NR_exit, status);
}

bool functions_work() {
    int (*volatile functions[])(int) = {far_1, far_2, far_3, far_4};
    for (int i = 0; i < 4; ++i)
        for (int x = 0; x < 100; ++x)
            if (functions[i](x) != x * 7 + i + 1) return false;
    return true;
}

u64 huge_bytes(const Region &region) {
    Pagemap pagemap;
    (void)pagemap.open();
    u64 bytes = 0;
    for (size_t i = 0; i < region.pages.size(); ++i) {
        u8 mark = 0;
        if (region.pages[i].state == HugePage::State::huge &&
            pagemap.find_huge(region.address_of(i), 1, &mark).ok() && mark)
            bytes += kHugeSize;
    }
    return bytes;
}

// HWCAP2_BTI of the auxiliary vector, which lies behind the arguments and the environment.
bool knows_bti(const long *stack) {
    const long *at = stack + 1 + stack[0] + 1;
    while (*at) ++at;
    for (++at; at[0]; at += 2)
        if (at[0] == AT_HWCAP2) return at[1] & HWCAP2_BTI;
    return false;
}

int prove(Backing backing, bool bti) {
    Table table;
    table.use_bti(bti);
    const auto *headers = reinterpret_cast<const Elf64_Phdr *>(
        reinterpret_cast<const char *>(&__ehdr_start) + __ehdr_start.e_phoff);
    table.begin_listing();
    if (!table.list(0, headers, __ehdr_start.e_phnum, true, false)) return 2;
    table.end_listing();
    const auto observed = table.observe(Table::Scope::all);
    if (!observed.ok()) {
        print("observe_errno=", observed.error());
        return 2;
    }
    Request request;
    request.backing = backing;
    request.private_limit = ~0ull;
    table.prepare(request, Table::Scope::all);
    table.commit();
    const Region &region = *table.regions()[0];
    print("text=", region.text_bytes);
    print("mapped=", region.mapped_text());
    print("swapped=", region.swapped_bytes());
    print("huge=", huge_bytes(region));
    print("status=", static_cast<u64>(region.outcome.status));
    print("call=", static_cast<u64>(region.outcome.call));
    print("errno=", region.outcome.error);
    if (!functions_work()) return 1;
    const bool swapped = region.any_huge();
    table.restore();
    print("left=", region.swapped_bytes());
    print(str("\n"));
    if (!functions_work()) return 1;
    return swapped ? 0 : 2;
}

}  // namespace

extern "C" [[noreturn, gnu::used]] void begin(const long *stack) {
    const long count = stack[0];
    const auto *arguments = reinterpret_cast<const char *const *>(stack + 1);
    const Str name = count > 1 ? str(arguments[1]) : str("auto");
    for (int i = 0; i <= static_cast<int>(Backing::automatic); ++i)
        if (equal(name, str(kBackingNames[i])))
            leave(prove(static_cast<Backing>(i), knows_bti(stack)));
    leave(3);
}

#if defined(__x86_64__)
asm(".globl _start\n_start:\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
#elif defined(__aarch64__)
asm(".globl _start\n_start:\n mov x0, sp\n bl begin\n");
#endif
