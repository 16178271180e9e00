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
#   READ_ONLY_THP  as 6.1 with READ_ONLY_THP_FOR_FS: what is read again stays small, and a file is
#         collapsed if it was touched; done here by dropping its pages, which are huge when read
#   FIRST  refuses all of a file but its first 4 MiB, as it does the last 2 MiB that a file ends inside
#   READ_ONLY_THP,SCAN and FIRST,SCAN  the same of Linux 6.7, which has PAGEMAP_SCAN
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

enum { DONTNEED = 4, POPULATE_READ = 22, POPULATE_WRITE = 23, COLLAPSE = 25, MOST = 64 };
static struct { pid_t pid; long answer; char path[500]; uint64_t offset, length; } changed[MOST];
static int scans;
enum model { OLD, EINVAL_UNTOUCHED, READ_ONLY_THP, FIRST };

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

// The path of the file that is mapped at an address, and the offset there; 0 where none is.
static int mapped(pid_t pid, uint64_t at, char *path, uint64_t *offset) {
    char name[600], line[600];
    snprintf(name, sizeof name, "/proc/%d/maps", pid);
    FILE *maps = fopen(name, "r");
    int found = 0;
    while (maps && !found && fgets(line, sizeof line, maps)) {
        unsigned long from, to, start;
        if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %499s", &from, &to, &start, path) != 4) continue;
        found = from <= at && at < to && path[0] == '/';
        *offset = start + (at - from);
    }
    if (maps) fclose(maps);
    return found;
}

static int ends_inside(pid_t pid, uint64_t start, uint64_t length) {
    char name[600], path[500];
    uint64_t offset;
    struct stat file;
    if (!mapped(pid, start, path, &offset)) return 0;
    snprintf(name, sizeof name, "/proc/%d/root%s", pid, path);
    return !stat(name, &file) && offset + length > file.st_size;
}

static int answer(pid_t pid, long error, int instead) {
    int i = 0;
    while (i < MOST - 1 && changed[i].pid) ++i;
    changed[i].pid = pid, changed[i].answer = -error, changed[i].length = 0;
    if (instead)
        ptrace(PTRACE_POKEUSR, pid, offsetof(struct user_regs_struct, orig_rax), -1L);
    return i;
}

static void collapse(pid_t pid, enum model model, uint64_t start, uint64_t length) {
    char path[500];
    uint64_t offset;
    const int refused = untouched(pid, start, length) || ends_inside(pid, start, length);
    const int file = mapped(pid, start, path, &offset) && strncmp(path, "/dev/shm/", 9) &&
                     strncmp(path, "/memfd:", 7);
    if (model == FIRST) {
        if (mapped(pid, start, path, &offset) && offset + length > 4 << 20) answer(pid, EINVAL, 1);
    } else if (model == EINVAL_UNTOUCHED || !file) {
        if (refused) answer(pid, EINVAL, 0);
    } else if (refused) {
        answer(pid, EINVAL, 1);
    } else {
        ptrace(PTRACE_POKEUSR, pid, offsetof(struct user_regs_struct, rdx), (long)DONTNEED);
        const int i = answer(pid, 0, 0);
        strcpy(changed[i].path, path);
        changed[i].offset = offset, changed[i].length = length;
    }
}

static void enter(pid_t pid, enum model model, const struct ptrace_syscall_info *call) {
    const uint64_t *with = call->entry.args;
    if (call->entry.nr == SYS_ioctl && (uint32_t)with[1] == 0xc0606610 && !scans)
        answer(pid, ENOTTY, 1);
    if (call->entry.nr == SYS_fadvise64 && model == READ_ONLY_THP) answer(pid, 0, 1);
    if (call->entry.nr != SYS_madvise) return;
    const uint64_t advice = with[2];
    if (model == OLD && (advice == COLLAPSE || advice == POPULATE_READ || advice == POPULATE_WRITE))
        answer(pid, EINVAL, 1);
    if (model != OLD && advice == COLLAPSE && with[1]) collapse(pid, model, with[0], with[1]);
}

static void leave(pid_t pid) {
    for (int i = 0; i < MOST; ++i)
        if (changed[i].pid == pid) {
            changed[i].pid = 0;
            ptrace(PTRACE_POKEUSR, pid, offsetof(struct user_regs_struct, rax), changed[i].answer);
            if (!changed[i].length) continue;
            const int fd = open(changed[i].path, O_RDONLY);
            posix_fadvise(fd, changed[i].offset, changed[i].length, POSIX_FADV_DONTNEED);
            close(fd);
        }
}

int main(int count, char **words) {
    const enum model model = !strcmp(words[1], "5.10")  ? OLD
                             : !strcmp(words[1], "6.1") ? EINVAL_UNTOUCHED
                             : !strncmp(words[1], "FIRST", 5) ? FIRST
                                                        : READ_ONLY_THP;
    scans = strstr(words[1], ",SCAN") != NULL;
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
            if (call.op == PTRACE_SYSCALL_INFO_ENTRY) enter(pid, model, &call);
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
