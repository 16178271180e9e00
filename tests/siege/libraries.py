"""The libraries that are besieged: of several layouts, each in two versions that differ in what they
compute, and the small C helper."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

FUNCTIONS = 64
PADDING = 72_000  # of text a function that is never executed: 4.6 MiB in all
FACTORS = (3, 5)  # of the first version, and of the one that takes its place

HEAD = """
/* Somebody writes another number into the instruction, which is four bytes at a multiple of four. */
#ifdef __x86_64__
#define PATCHED "nop; nop; nop; mov $7, %eax; ret"
#else
#define PATCHED "mov w0, 7; ret"
#endif
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
int s_off;  /* what a test sets to have a wrong result seen */
int s_factor(void) { return FACTOR; }
/* For uprobes, for breakpoints (an int3 of both is the uprobe's), for the profiler's signal. */
int s_probe(int x) { return x * FACTOR; }
int s_trap(int x) { return x * FACTOR; }
int s_patched(void);
__asm__(".text\\n.globl s_patched\\n.type s_patched,@function\\n.balign 16\\ns_patched:\\n"
        PATCHED "\\n.size s_patched,.-s_patched\\n");
int s_tick(int x) { return x * FACTOR; }
"""
TAIL = """
static volatile int s_ended;
static volatile long s_bad, s_turns;
static pthread_t s_threads[4];
static int s_count;

long s_check(int x) {
    long sum = s_off;
    for (int i = 0; i < COUNT; ++i) sum += s_table[i](x);
    return sum;
}

static void *s_work(void *argument) {
    setpriority(PRIO_PROCESS, 0, 19);
    for (int x = (int)(long)argument; !s_ended; ++x, x &= 0xffff) {
        for (int i = 0; i < COUNT; ++i)
            if (s_table[i](x) != x * FACTOR + i) ++s_bad;
        ++s_turns;
        if (x % 32 == 0) usleep(500);
    }
    return 0;
}

int s_start(void) {
    if (s_count == 4) return -1;
    if (pthread_create(&s_threads[s_count], 0, s_work, (void *)(long)s_count)) return -1;
    return ++s_count;
}

/* Ends the threads; how many results were wrong. */
long s_stop(void) {
    s_ended = 1;
    while (s_count) pthread_join(s_threads[--s_count], 0);
    s_ended = 0;
    return s_bad;
}

/* In a forked child: they stayed with the parent. */
void s_forget(void) { s_count = 0; }
long s_wrong(void) { return s_bad; }

/* The child returns into text that may just have moved. */
int s_vfork(void) {
    int status = -1;
    pid_t child = vfork();
    if (child == 0) _exit(s_table[7](1) == FACTOR + 7 ? 7 : 8);
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}
"""

# Where segments begin, and which of them share pages.
LAYOUTS = {
    "plain": (),
    "joined": ("-Wl,-z,noseparate-code",),
    "large": ("-Wl,-z,max-page-size=2097152",),
    "lld": ("-fuse-ld=lld",),
}


def expected(x: int, factor: int) -> int:
    """What s_check(x) returns."""
    return FUNCTIONS * x * factor + FUNCTIONS * (FUNCTIONS - 1) // 2


def source() -> str:
    skip = f'__asm__ volatile(".skip {PADDING}, 0x90")'
    functions = [
        f"static __attribute__((noinline)) int s_{i}(int x) "
        f"{{ if (x == -12345) {skip}; return x * FACTOR + {i}; }}"
        for i in range(FUNCTIONS)
    ]
    names = ", ".join(f"s_{i}" for i in range(FUNCTIONS))
    table = f"static int (*const s_table[])(int) = {{{names}}};"
    return "\n".join([HEAD, *functions, table, TAIL.replace("COUNT", str(FUNCTIONS))])


def make(directory: Path, compiler: str) -> list[str]:
    """Compiles them: `libsiege_LAYOUT.so.FACTOR`, helper and libhelper.so. Returns the layouts."""
    code = directory / "siege.c"
    code.write_text(source())
    made = []
    for layout, flags in LAYOUTS.items():
        if layout == "lld" and not shutil.which("ld.lld"):
            continue
        for factor in FACTORS:
            target = directory / f"libsiege_{layout}.so.{factor}"
            name = f"-Wl,-soname,libsiege_{layout}.so"
            command = [compiler, "-O1", "-shared", "-fPIC", "-pthread", f"-DFACTOR={factor}", name]
            subprocess.run([*command, *flags, "-o", target, code], check=True)
        made.append(layout)
    helper = Path(__file__).with_name("helper.c")
    common = [compiler, "-O1", "-Wall", "-Wextra", "-pthread"]
    library = directory / "libhelper.so"
    subprocess.run([*common, "-shared", "-fPIC", "-o", library, helper, "-ldl"], check=True)
    subprocess.run([*common, "-DPROGRAM", "-o", directory / "helper", helper, "-ldl"], check=True)
    return made
