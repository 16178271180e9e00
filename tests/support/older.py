"""Kernels that answer otherwise than this one: a program runs under ptrace(2), which unlike a seccomp
filter the package does not take for a restriction of its own process."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from support.common import tool
from support.once import compiled

# What they answer to madvise(2) and to PAGEMAP_SCAN:
#   5.10  knows neither MADV_COLLAPSE nor MADV_POPULATE_READ
#   6.1   collapses, and answers EINVAL all the same where no page of 2 MiB was in the page table
#         before, or the file ends inside the range
SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

long ptrace(int request, ...);

enum { POPULATE_READ = 22, POPULATE_WRITE = 23, COLLAPSE = 25, MOST = 64 };
static struct { pid_t pid; long answer; } changed[MOST];

static int any_present(pid_t pid, uint64_t start, uint64_t length) {
    char name[40];
    snprintf(name, sizeof name, "/proc/%d/pagemap", pid);
    int fd = open(name, O_RDONLY), any = 0;
    for (uint64_t at = start; fd >= 0 && !any && at < start + length; at += 4096) {
        uint64_t entry = 0;
        any = pread(fd, &entry, 8, at / 4096 * 8) == 8 && entry >> 63;
    }
    if (fd >= 0) close(fd);
    return any;
}

static int untouched(pid_t pid, uint64_t start, uint64_t length) {
    int any = 0;
    for (uint64_t at = start; at < start + length; at += 2 << 20)
        any = any || !any_present(pid, at, 2 << 20);
    return any;
}

static int ends_inside(pid_t pid, uint64_t start, uint64_t length) {
    char name[600], line[600], path[500];
    snprintf(name, sizeof name, "/proc/%d/maps", pid);
    FILE *maps = fopen(name, "r");
    int ends = 0;
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long from, to, offset;
        if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %499s", &from, &to, &offset, path) != 4) continue;
        if (start < from || start >= to || path[0] != '/') continue;
        struct stat file;
        snprintf(name, sizeof name, "/proc/%d/root%s", pid, path);
        ends = !stat(name, &file) && offset + (start - from) + length > file.st_size;
    }
    if (maps) fclose(maps);
    return ends;
}

static void answer(pid_t pid, long error, int instead) {
    for (int i = 0; i < MOST; ++i)
        if (!changed[i].pid) {
            changed[i].pid = pid, changed[i].answer = -error;
            break;
        }
    if (instead)
        ptrace(PTRACE_POKEUSR, pid, offsetof(struct user_regs_struct, orig_rax), -1L);
}

static void enter(pid_t pid, int old, const struct ptrace_syscall_info *call) {
    const uint64_t *with = call->entry.args;
    if (call->entry.nr == SYS_ioctl && (uint32_t)with[1] == 0xc0606610) answer(pid, ENOTTY, 1);
    if (call->entry.nr != SYS_madvise) return;
    if (old && (with[2] == COLLAPSE || with[2] == POPULATE_READ || with[2] == POPULATE_WRITE))
        answer(pid, EINVAL, 1);
    if (!old && with[2] == COLLAPSE && with[1] &&
        (untouched(pid, with[0], with[1]) || ends_inside(pid, with[0], with[1])))
        answer(pid, EINVAL, 0);
}

static void leave(pid_t pid) {
    for (int i = 0; i < MOST; ++i)
        if (changed[i].pid == pid) {
            changed[i].pid = 0;
            ptrace(PTRACE_POKEUSR, pid, offsetof(struct user_regs_struct, rax),
                   changed[i].answer);
        }
}

int main(int count, char **words) {
    const int old = !strcmp(words[1], "5.10");
    const pid_t first = fork();
    if (!first) {
        ptrace(PTRACE_TRACEME, 0, 0L, 0L);
        raise(SIGSTOP);
        execvp(words[2], words + 2);
        _exit(127);
    }
    int status, result = 1, begun = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR;) {
        if (pid <= 0) continue;
        if (!WIFSTOPPED(status)) {
            if (pid == first) result = WIFEXITED(status) ? WEXITSTATUS(status) : 255;
            continue;
        }
        int signal = WSTOPSIG(status);
        if (signal == (SIGTRAP | 0x80)) {
            struct ptrace_syscall_info call;
            ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof call, &call);
            if (call.op == PTRACE_SYSCALL_INFO_ENTRY) enter(pid, old, &call);
            if (call.op == PTRACE_SYSCALL_INFO_EXIT) leave(pid);
        } else if (pid == first && !begun) {
            begun = 1;
            ptrace(PTRACE_SETOPTIONS, pid, 0L,
                   PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                       PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
        } else if (status >> 16 == 0 && signal != SIGSTOP) {
            ptrace(PTRACE_SYSCALL, pid, 0L, (long)signal);
            continue;
        }
        ptrace(PTRACE_SYSCALL, pid, 0L, 0L);
    }
    return result;
}
"""


def as_on(kernel: str, directory: Path) -> tuple[str, ...]:
    """The command in front of a program that is to run as on that kernel."""
    if platform.machine() != "x86_64":
        pytest.skip("registers are changed as x86_64 has them")
    compiler = tool("cc", "gcc", "clang")
    program = compiled(directory / "older", SOURCE, compiler, "-O1", "-w")
    return str(program), kernel
