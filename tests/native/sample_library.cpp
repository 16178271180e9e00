// What a C++ extension library is made of, with enough text to be worth huge pages: filler text
// and read-only data between functions that throw, use thread-local storage, are chosen at load
// time (GNU_IFUNC) or are reached through relocated pointers. Linked in many ways by
// test_store_elf.py; `main` is for executables.
#include <link.h>
#include <stdint.h>

#include <stdexcept>

#ifndef TEXT_BYTES
#define TEXT_BYTES 0x300000
#endif
#ifndef DATA_WORDS
#define DATA_WORDS 0x20000
#endif

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

asm(".section .rodata.filler, \"a\", @progbits\n"
    ".balign 8\n"
    "sample_words: .set sample_i, 0\n"
    ".rept " TEXT(DATA_WORDS) "\n"
    ".quad sample_i * 3\n"
    ".set sample_i, sample_i + 1\n"
    ".endr\n"
    ".section .text.filler, \"ax\", @progbits\n"
    ".type sample_filler, @function\n"
    "sample_filler: .skip " TEXT(TEXT_BYTES) ", 0x90\n"
    ".size sample_filler, . - sample_filler\n"
    ".text\n");

extern "C" {

extern const uint64_t sample_words[] __attribute__((visibility("hidden")));

#define FAR __attribute__((noinline, section(".text.zfar")))

int sample_near(int x) {
    return x * 3 + 1;
}

FAR int sample_far(int x) {
    return x * 5 + 2;
}

FAR uint64_t sample_word(uint64_t i) {
    return i < DATA_WORDS ? sample_words[i] : 0;
}

FAR int sample_catch(int x) {
    try {
        if (x > 0) throw std::runtime_error("far");
        return 0;
    } catch (const std::exception &) {
        return x + 7;
    }
}

// An exception passes through here, past a destructor, from a callback to the caller's caller.
struct Counter {
    int *count;
    ~Counter() { ++*count; }
};
FAR int sample_through(int (*callback)(int), int x, int *unwound) {
    const Counter counter{unwound};
    return callback(x) + 1;
}

static thread_local int calls = 40;
FAR int sample_thread_local() {
    return ++calls;
}

static int chosen(int x) {
    return x ^ 0x55;
}
static int (*choose())(int) {
    return chosen;
}
#ifndef NO_IFUNC
int sample_chosen(int x) __attribute__((ifunc("choose")));
#else
int sample_chosen(int x) {
    return choose()(x);
}
#endif

// Relocated: lies in what RELRO protects.
int (*const sample_table[])(int) = {sample_near, sample_far, sample_catch};
int sample_indirect(int i, int x) {
    return sample_table[i % 3](x);
}

// What dl_iterate_phdr now says of this object: 1 an executable segment holds sample_far, 2 there
// is a PT_DYNAMIC, 4 and a PT_GNU_EH_FRAME.
static int look(dl_phdr_info *info, size_t, void *data) {
    const auto here = reinterpret_cast<uintptr_t>(&sample_far);
    int found = 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const ElfW(Phdr) &header = info->dlpi_phdr[i];
        const uintptr_t start = info->dlpi_addr + header.p_vaddr;
        if (header.p_type == PT_LOAD && (header.p_flags & PF_X) && start <= here &&
            here - start < header.p_memsz)
            found |= 1;
        if (header.p_type == PT_DYNAMIC) found |= 2;
        if (header.p_type == PT_GNU_EH_FRAME) found |= 4;
    }
    if (!(found & 1)) return 0;
    *static_cast<int *>(data) = found;
    return 1;
}
FAR int sample_headers() {
    int found = 0;
    dl_iterate_phdr(look, &found);
    return found;
}

// 0 when everything computes what it should.
int sample_check(int x) {
    if (sample_near(x) != x * 3 + 1) return 1;
    if (sample_indirect(1, x) != x * 5 + 2) return 2;
    if (sample_word(DATA_WORDS - 1) != (DATA_WORDS - 1) * 3) return 3;
    if (sample_catch(3) != 10) return 4;
    const int before = sample_thread_local();
    if (sample_thread_local() != before + 1 || before <= 40) return 5;
    if (sample_chosen(1) != 0x54) return 6;
    return 0;
}

}  // extern "C"

__attribute__((weak)) int main() {
    return sample_check(17);
}
