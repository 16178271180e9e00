"""Programs that are no Python, with text that is worth a huge page: compiled in no time."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.cli import Library, make_library
from support.common import tool

# Says what it computed, and waits for its input to end where it has an argument; opens the library
# that a second one names.
_SOURCE = """
    #include <dlfcn.h>
    #include <stdio.h>
    int f_triple(int);
    int own(int x) {
        if (x == -12345) __asm__ volatile(".skip 5 << 20, 0x90");
        return x * 3;
    }
    int main(int count, char **words) {
        int sum = own(2) + f_triple(3);
        if (count > 2) {
            void *library = dlopen(words[2], RTLD_NOW);
            int (*triple)(int) = library ? (int (*)(int))dlsym(library, "g_triple") : 0;
            if (!triple) return 9;
            sum += triple(5);
        }
        printf("%d\\n", sum);
        fflush(stdout);
        if (count > 1) while (getchar() != EOF) {}
        return 0;
    }
"""


class Sample:
    """A program with 5 MiB of text and a library with as much."""

    def __init__(self, directory: Path, compile_library: Library) -> None:
        self.library = make_library(compile_library)
        self.opened = make_library(compile_library, tag="g")  # that it opens when it is told to
        self._directory = directory

    def program(self, *options: str) -> Path:
        """-no-pie has an address of its own, -pie another one at each start."""
        source = self._directory / "sample.c"
        source.write_text(_SOURCE)
        program = self._directory / f"sample{''.join(options)}"
        flags = [f"-L{self.library.parent}", "-lf", f"-Wl,-rpath,{self.library.parent}", "-ldl"]
        compiler = tool("cc", "gcc", "clang")
        subprocess.run(
            [compiler, "-O1", *options, "-o", str(program), str(source), *flags], check=True
        )
        return program
