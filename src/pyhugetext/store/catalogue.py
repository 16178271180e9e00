"""One store on disk or in shared memory: finding, adding, evicting.

    v1/index/<key>                  a record: file identity -> copy
    v1/objects/<name>/<basename>    the copy
    v1/tmp/                         what is being written
    v1/verdict                      what this file system does, found out once

A directory lock (flock on v1, gone with its holder) is held by whoever writes. All else follows
from its being exclusive: whatever is in tmp then is a killed builder's and goes.
"""

import binascii
import fcntl
import os
import time

from pyhugetext.store import copy, elf, files, places, record, room

NOTE_LASTS = 24 * 60 * 60  # seconds; kDay in core/record.cpp
BRIEF = 60  # seconds a note of what may pass lasts


class Changed(elf.Refused):
    """The file was changed while it was copied."""


class Busy(Exception):
    """Another process is writing to this store."""


class Catalogue:
    """A store at `root`. `shared_memory` tells a tmpfs store, whose copies are collapsed."""

    def __init__(self, root: str, limit: int, shared_memory: bool, public: bool = False) -> None:
        self.root = root
        self.limit = limit
        self.shared_memory = shared_memory
        self.limit_is_own = False  # the limit is this process's: another may have room
        self.public = public  # the system's: read by everyone, found in container images too
        self.mode = 0o755 if public else 0o700
        self.base = os.path.join(root, places.VERSION)
        self.index = os.path.join(self.base, "index")
        self.objects = os.path.join(self.base, "objects")
        self.tmp = os.path.join(self.base, "tmp")
        self.verdict_file = os.path.join(self.base, "verdict")
        self.keep = set()  # type: set[str]  # records that are not evicted to make room
        self.evicts_used = False  # also what was used lately: somebody asked for what is added

    def prepare(self) -> None:
        """Makes the directories and checks whom they belong to. OSError, places.Untrusted."""
        places.check_before_making(self.root)
        for path in (self.index, self.objects, self.tmp):
            places.make_directory(path, self.mode)
        places.check_trust(self.root)
        for path in (self.base, self.index, self.objects, self.tmp):
            places.check_own(path)

    def lock(self, wait: bool, sweep: bool = True) -> int:
        """Takes the writer's lock, and clears what killed builders left; the descriptor to close.
        Busy unless `wait`."""
        fd = os.open(self.base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            os.close(fd)
            if isinstance(error, BlockingIOError):
                raise Busy(f"{self.root} is being written by another process") from None
            raise
        if sweep:
            try:
                self.sweep()
            except BaseException:
                self.unlock(fd)
                raise
        return fd

    def unlock(self, fd: int) -> None:
        """Gives the lock back, even where a child forked meanwhile has the descriptor too."""
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)

    def sweep(self) -> "list[tuple[str, int]]":
        """Removes what killed builders left: (path, bytes freed). The lock must be held."""
        out = []
        for name in os.listdir(self.tmp):
            path = os.path.join(self.tmp, name)
            out.append((path, files.disk_bytes(path)))
            files.remove(path)
        return out

    def read(self, name: str) -> "record.Record | record.Note | None":
        """What the index has under that name; None where it is neither record nor note."""
        try:
            with os.fdopen(places.open_trusted(os.path.join(self.index, name)), "rb") as file:
                data = file.read(record.LIMIT + 1)
            if data.startswith(record.NOTE_MAGIC):
                return record.Note.unpack(data)
            return record.Record.unpack(data)
        except (OSError, places.Untrusted, record.Damaged):
            return None

    def records(self) -> "list[tuple[str, record.Record | record.Note | None]]":
        """All of the index: (name, what read() says)."""
        return [(name, self.read(name)) for name in sorted(os.listdir(self.index))]

    def drop_copy(self, path: str, names: "list[str]") -> int:
        """Removes a copy and its records, which are these. Returns the bytes freed."""
        for name in names:
            files.remove(os.path.join(self.index, name))
        return self._drop_object(path)

    def copies(self) -> "list[tuple[str, list[tuple[str, record.Record]]]]":
        """The copies that records tell of: (path, [(name, record), ...])."""
        out = {}  # type: dict[str, list[tuple[str, record.Record]]]
        for name, entry in self.records():
            if isinstance(entry, record.Record):
                out.setdefault(entry.path, []).append((name, entry))
        return list(out.items())

    def drop_record(self, name: str) -> int:
        """Removes a record, and its copy when no other record has it. Returns the bytes freed."""
        paths = {n: r.path for n, r in self.records() if isinstance(r, record.Record)}
        files.remove(os.path.join(self.index, name))
        path = paths.pop(name, None)
        if path is None or path in paths.values():
            return 0
        return self._drop_object(path)

    def _drop_object(self, path: str) -> int:
        target = os.path.join(self.base, path)
        size = files.file_bytes(target)
        files.remove(os.path.dirname(target))
        return size

    def drop_orphans(self) -> int:
        """Removes copies without a record and records without a copy. Returns the bytes freed."""
        for name, entry in self.records():
            if isinstance(entry, record.Note):
                continue
            if entry is None or not os.path.isfile(os.path.join(self.base, entry.path)):
                files.remove(os.path.join(self.index, name))
        return self.drop_orphan_copies()

    def drop_orphan_copies(self) -> int:
        """Removes copies without a record, left by killed builders. Returns the bytes freed."""
        freed = 0
        used = self._paths_in_use()
        for name in os.listdir(self.objects):
            directory = os.path.join(self.objects, name)
            bases = os.listdir(directory) if os.path.isdir(directory) else []
            if not any(f"objects/{name}/{base}" in used for base in bases):
                for base in bases:
                    freed += files.file_bytes(os.path.join(directory, base))
                files.remove(directory)
        return freed

    def _paths_in_use(self, but: str = "") -> "set[str]":
        """The copies that have a record, other than that of the name `but`."""
        return {
            entry.path
            for name, entry in self.records()
            if isinstance(entry, record.Record) and name != but
        }

    def _drop_superseded(self, name: str) -> None:
        """Removes the records of the file of this key from before it was changed in place."""
        current = name.rsplit("-", 1)[0]
        prefix = "-".join(name.split("-")[:3]) + "-"
        for other in os.listdir(self.index):
            if other.startswith(prefix) and other.rsplit("-", 1)[0] != current:
                self.drop_record(other)

    def add(self, path: str, bias: int, durable: bool) -> "tuple[str, int]":
        """Builds the entry of one file, or ties it to a copy of the same content that is there.

        The lock must be held. Returns the copy's path relative to v1 and the bytes written (0
        when a copy was there). elf.Refused, room.Full, OSError otherwise, with nothing left behind.
        """
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            before = os.fstat(source)
            files.outlast_tick(before)
            layout = elf.lay_out(lambda n, at: os.pread(source, n, at), before.st_size, bias)
            key = record.key(before, bias)
            name, base = _object_name(layout, before, bias), os.path.basename(path)
            written = 0
            where = self._same_object(key, name, base, layout, source)
            if where is None:
                where = self._write_object(name, base, layout, source, durable)
                written = layout.size
            elif durable:
                self._sync_copy(where)
            if record.key(os.fstat(source), bias) != key:
                if written:
                    self._drop_object(where)
                raise Changed("was changed while it was copied")
        finally:
            os.close(source)
        header = b""
        with open(os.path.join(self.base, where), "rb") as file:
            header = file.read(layout.header_size)
            if not written:
                # Comparing read it into small folios; the next fault reads 2 MiB.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        origin = os.path.abspath(path)
        entry = record.Record.make(before, bias, layout, where, header, durable, origin)
        self._write_record(key, entry.pack(), durable)
        if self.public and durable and layout.build_id:
            name = record.image_key(before, bias, layout.build_id)
            self._write_record(name, entry.of_image().pack(), durable)
        self._drop_superseded(key)
        return where, written

    def promote(self, name: str, entry: record.Record) -> None:
        """Makes an entry of this boot durable: its copy goes to disk first, then its record says
        so. The lock must be held. OSError as fsync(2)."""
        self._sync_copy(entry.path)
        entry.boot_id = bytes(16)
        self._write_record(name, entry.pack(), True)

    def _sync_copy(self, where: str) -> None:
        target = os.path.join(self.base, where)
        for path in (target, os.path.dirname(target), self.objects):
            files.sync(path)

    def note(self, path: str, bias: int, reason: str, brief: bool = False) -> None:
        """Remembers that an entry could not be made, so that the next start does not try: for a
        day, or for a minute what may pass (`brief`). Silent when even that cannot be written. The
        lock must be held."""
        note = record.Note(os.uname().release, reason, os.path.abspath(path))
        try:
            name = record.key(os.stat(path), bias)
            if not self._is_current(name):
                self._write_record(name, note.pack(), False)
                if brief:
                    noted = time.time() - NOTE_LASTS + BRIEF
                    os.utime(os.path.join(self.index, name), (noted, noted))
        except OSError:
            pass

    def _is_current(self, name: str) -> bool:
        """Whether there is a record that the core would believe."""
        entry = self.read(name)
        return isinstance(entry, record.Record) and entry.counts()

    def _same_object(
        self, key: str, name: str, base: str, layout: elf.Layout, source: int
    ) -> "str | None":
        """The copy of the same content under the same basename, when the store has it. A copy
        that nobody trusts, or that differs and is no other file's, goes."""
        for number in range(16):
            where = f"objects/{name}-{number}/{base}"
            directory = os.path.join(self.objects, f"{name}-{number}")
            try:
                places.check_own(directory)
                target = places.open_trusted(os.path.join(directory, base))
            except FileNotFoundError:
                continue  # none, or one of another basename
            except (OSError, places.Untrusted):
                files.try_to_remove(directory)  # somebody else's stays; the next number is free
                continue
            try:
                if copy.same_copy(layout, source, target) is None:
                    return where
            finally:
                os.close(target)
            if where not in self._paths_in_use(but=key):
                files.try_to_remove(directory)
        return None

    def _write_object(
        self, name: str, base: str, layout: elf.Layout, source: int, durable: bool
    ) -> str:
        room.make_room(self, layout.size)
        temporary = os.path.join(self.tmp, f"{os.getpid()}-{name}")
        os.mkdir(temporary, self.mode)
        try:
            os.chmod(temporary, self.mode)  # whatever the umask
            target = os.path.join(temporary, base)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(target, flags, 0o600)
            try:
                copy.write_copy(layout, source, fd)
                os.fchmod(fd, 0o444 if self.public else 0o400)
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            if durable:
                files.sync(temporary)
            for number in range(16):
                final = os.path.join(self.objects, f"{name}-{number}")
                if not os.path.lexists(final):
                    os.rename(temporary, final)
                    if durable:
                        files.sync(self.objects)
                    return f"objects/{name}-{number}/{base}"
            raise room.Full("sixteen different files have the same build-id and size")
        except BaseException:
            files.remove(temporary)
            raise

    def _write_record(self, name: str, data: bytes, durable: bool) -> None:
        self.write_file(os.path.join(self.index, name), data, durable)

    def write_file(self, final: str, data: bytes, durable: bool) -> None:
        """Puts a small file in its place, whatever is there. The lock must be held."""
        temporary = os.path.join(self.tmp, f"{os.getpid()}-file")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600)
        try:
            try:
                while data:
                    data = data[os.write(fd, data) :]
                os.fchmod(fd, 0o644 if self.public else 0o600)
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            if os.path.isdir(final) and not os.path.islink(final):
                files.remove(final)
            os.rename(temporary, final)
        except BaseException:
            files.remove(temporary)
            raise
        if durable:
            files.sync(os.path.dirname(final))


def _object_name(layout: elf.Layout, status: os.stat_result, bias: int) -> str:
    """A name that files of different content seldom share; whoever shares it is compared."""
    content = layout.build_id.hex()
    if not content:
        content = f"{binascii.crc32(repr(layout.ranges).encode()):08x}"
    return f"{content[:40]}-{status.st_size:x}-{bias:x}"
