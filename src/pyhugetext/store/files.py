"""What the store does with files, whatever they hold."""

import os
import time

TICK = 0.02  # seconds, twice the longest between two times that a kernel gives to files


def outlast_tick(status: os.stat_result) -> None:
    """Waits until a change of a file would show in its times: what is changed twice within one
    tick has the same identity before and after."""
    age = time.time() - status.st_ctime
    if 0 <= age < TICK:
        time.sleep(TICK - age)


def file_bytes(path: str) -> int:
    """What a file takes; 0 where it is gone."""
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0


def disk_bytes(path: str) -> int:
    """What a file, or the files of a directory, take."""
    names = os.listdir(path) if os.path.isdir(path) and not os.path.islink(path) else None
    if names is not None:
        return sum(disk_bytes(os.path.join(path, name)) for name in names)
    return os.lstat(path).st_blocks * 512


def sync(path: str) -> None:
    """Brings a file, or the names in a directory, to disk; see fsync(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def try_to_remove(path: str) -> None:
    """As remove(); silent where it cannot be removed, too."""
    try:
        remove(path)
    except OSError:
        return


def remove(path: str) -> None:
    """Removes a file or a directory with all below it; silent when it is gone."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            for name in os.listdir(path):
                remove(os.path.join(path, name))
            os.rmdir(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass
