"""Runs in a guest, beside what is asked: mounts a file system after the other, starts Python on it again
and again, and says in lines that begin with @@ what came out. Nothing here is remapped.
"""

import contextlib
import json
import os
import subprocess
import time

PYTHON, LIMIT = "/usr/bin/python3.11", 600
DISKS = {"ext4": "/dev/vdb", "xfs": "/dev/vdc", "btrfs": "/dev/vdd"}
BOX = "/bin/busybox"
USUAL = "ext4 xfs btrfs tmpfs overlay squashfs"


def say(**row):
    print("@@ " + json.dumps(row), flush=True)


def box(*command):
    result = subprocess.run([BOX, *command], capture_output=True, text=True, check=False)
    if result.returncode:
        raise OSError(f"{' '.join(command)}: {result.stderr.strip() or result.returncode}")


def option(name, usual):
    with open("/proc/cmdline") as file:
        found = [
            word.partition("=")[2] for word in file.read().split() if word.startswith(name + "=")
        ]
    return (found[0].replace(",", " ") if found else usual).split()


def unpack(place):
    os.makedirs(place, exist_ok=True)
    box("tar", "xf", "/dev/vda", "-C", place)


def mount_disk(kind):
    """The file system of that disk, with the root on it, as after a boot: nothing of it in memory."""
    place = f"/m/{kind}"
    os.makedirs(place, exist_ok=True)
    if not os.path.ismount(place):
        box("mount", "-t", kind, DISKS[kind], place)
    if not os.path.isdir(f"{place}/r/usr"):
        unpack(f"{place}/r")
    box("umount", place)
    box("mount", "-t", kind, DISKS[kind], place)
    box("rm", "-rf", f"{place}/r/root/.cache")
    return f"{place}/r"


def prepare(kind):
    """The root on that file system, mounted; and the mounts to undo."""
    place = f"/m/{kind}"
    os.makedirs(place, exist_ok=True)
    if kind in DISKS:
        return mount_disk(kind)
    if kind == "tmpfs":
        box("mount", "-t", "tmpfs", "-o", "size=1500m", "tmpfs", place)
        unpack(f"{place}/r")
        return f"{place}/r"
    lower, upper = mount_disk("ext4"), "/m/ext4/upper"
    box("rm", "-rf", upper)
    if kind == "overlay":
        os.makedirs(f"{upper}/u")
        os.makedirs(f"{upper}/w")
        options = f"lowerdir={lower},upperdir={upper}/u,workdir={upper}/w"
        box("mount", "-t", "overlay", "-o", options, "overlay", place)
        return place
    if kind == "squashfs":  # read only, with a home on a disk
        box("mount", "-t", "squashfs", "-o", "ro", "/dev/vde", place)
        os.makedirs(upper)
        box("mount", "-o", "bind", upper, f"{place}/root")
        return place
    raise OSError(f"{kind} is no file system to ask")


def mount_system(root):
    for kind, where in (("proc", "proc"), ("sysfs", "sys"), ("devtmpfs", "dev")):
        box("mount", "-t", kind, kind, f"{root}/{where}")
    os.makedirs(f"{root}/dev/shm", exist_ok=True)
    box("mount", "-t", "tmpfs", "-o", "mode=1777", "shm", f"{root}/dev/shm")


def unmount(under):
    with open("/proc/mounts") as file:
        places = [line.split()[1] for line in file]
    for place in reversed(places):
        if place == under or place.startswith(under + "/"):
            box("umount", place)


def used(place):
    """Bytes that files take there."""
    total = 0
    for folder, _, files in os.walk(place):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(folder, name)).st_blocks * 512
    return total


def python(root, *arguments, **environ):
    clean = {"HOME": "/root", "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **environ}
    start = time.monotonic()
    command = [BOX, "chroot", root, PYTHON, *arguments]
    try:
        result = subprocess.run(
            command, env=clean, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        code, out, err = result.returncode, result.stdout, result.stderr
    except subprocess.TimeoutExpired:
        code, out, err = 124, "", f"did not end in {LIMIT} s"
    return code, out, err, time.monotonic() - start


def step(root, fs, name, *arguments, **environ):
    code, out, err, seconds = python(root, *arguments, **environ)
    row = {
        "fs": fs,
        "step": name,
        "exit": code,
        "seconds": round(seconds, 2),
        "stderr": err[-1000:],
    }
    try:
        row["seen"] = json.loads(out)
    except ValueError:
        row["out"] = out[-1500:]
    row["shm"] = used(f"{root}/dev/shm")
    row["store"] = used(f"{root}/root/.cache")
    say(**row)


def ask(fs):
    root = prepare(fs)
    mount_system(root)
    observe = "/t/observe.py"
    step(root, fs, "without", observe, "numpy", PYHUGETEXT="0")
    for name in ("first", "second", "third"):
        step(root, fs, name, observe, "numpy")
    step(root, fs, "remap", observe, "--remap", "numpy")
    step(root, fs, "restore", observe, "--restore", "numpy")
    step(root, fs, "memfd", observe, "numpy", PYHUGETEXT_BACKING="memfd")
    step(root, fs, "warm", "-m", "pyhugetext", "warm", "--", PYTHON, "-c", "import numpy")
    step(root, fs, "warmed", observe, "numpy")


def settings():
    place, found = "/sys/kernel/mm/transparent_hugepage", {}
    for name in ("enabled", "defrag", "shmem_enabled"):
        try:
            with open(f"{place}/{name}") as file:
                found[name] = file.read().strip()
        except OSError as error:
            found[name] = str(error)
    return found


def main():
    say(step="settings", **settings())
    os.makedirs("/m", exist_ok=True)
    for fs in option("guest.fs", USUAL):
        try:
            ask(fs)
        except OSError as error:
            say(fs=fs, step="failed", error=str(error))
        try:
            unmount(f"/m/{fs}")
        except OSError as error:
            say(fs=fs, step="failed", error=str(error))
    log = subprocess.run([BOX, "dmesg"], capture_output=True, text=True, check=False).stdout
    bad = [
        line
        for line in log.splitlines()
        if any(w in line for w in ("BUG", "WARN", "Oops", "segf", "traps"))
    ]
    say(step="log", lines=bad[:20])


main()
