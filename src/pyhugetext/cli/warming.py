"""Filling a store ahead of use: what is wanted, from where it is known, and what became of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyhugetext.cli import stores, text
from pyhugetext.cli.outcome import Failure
from pyhugetext.cli.progress import Progress

if TYPE_CHECKING:
    from pyhugetext.cli.objects import Object
    from pyhugetext.cli.recording import Recorder, Wanted
    from pyhugetext.programs.looking import Program
    from pyhugetext.store.places import Store
    from pyhugetext.store.warm import Made


@dataclass
class Warming:
    """One call: what is asked for, what it finds, does, and could not do. `name` is the command's, for
    what is said on stderr."""

    name: str = "warm"
    modules: Sequence[str] = ()
    files: Sequence[str] = ()
    all_installed: bool = False
    system: bool = False
    used: bool = False  # only what is used meanwhile, by what is run
    command: Sequence[str] = ()
    quiet: bool = False  # the command's output goes to stderr
    silent: bool = False  # it reads nothing and prints nowhere, and nothing is said
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    progress: Progress = field(default_factory=Progress)
    wanted: dict[Wanted, None] = field(default_factory=dict)
    elsewhere: list[Wanted] = field(default_factory=list)  # at another address each time
    present: dict[Wanted, None] = field(default_factory=dict)  # in the system's store already
    made: list[Made] = field(default_factory=list)
    stores: list[tuple[Store, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    interrupted: bool = False
    began: float = field(default_factory=time.perf_counter)

    def fail(self, sentence: str) -> None:
        """Something asked for cannot be done; the rest goes on."""
        self.progress.stop()
        self.problems.append(sentence)
        self.say(sentence)

    def say(self, sentence: str) -> None:
        if not self.silent:
            text.say(sentence, self.name)


def fill(call: Warming) -> None:
    """Does it. Failure where there is no store to fill."""
    try:
        store = _choose(call)
        _find(call, store)
        _prepare(call, store)
    except KeyboardInterrupt:
        call.interrupted = True
    finally:
        call.progress.stop()


def _choose(call: Warming) -> Store:
    """The store to fill. Failure where there is none."""
    from pyhugetext.store import places

    found = stores.settings()
    only_disk = call.system or found.backing == "store"
    why = ""  # it is not the store on disk
    disk = places.system(found) if call.system else places.user(found)
    if found.backing == "shm" and not call.system:
        disk = None
    elif disk is None:
        why = "neither PYHUGETEXT_STORE nor XDG_CACHE_HOME nor HOME names a store"
    if disk is not None:
        stores.make(disk)
        with stores.told(disk):
            verdict = places.judge(disk)
        call.stores.append((disk, verdict))
        if verdict != places.NEVER:
            return disk
        why = f"store {disk.root}: this file system never gives files huge pages"
    if why and only_disk:
        raise Failure(f"{why}; nothing was built" if disk else why)
    if why:
        call.say(f"{why}; the store in shared memory is filled instead")
    return _choose_memory(call, places.shared_memory(found))


def _choose_memory(call: Warming, shm: Store) -> Store:
    """The store in shared memory. Failure where the kernel does not collapse what is there."""
    from pyhugetext.store import places

    stores.make(shm)
    with stores.told(shm):
        verdict = places.judge(shm)
    if verdict == places.NEVER:
        raise Failure(
            f"store {shm.root}: the kernel does not collapse shared memory (MADV_COLLAPSE, Linux 6.1), "
            "so a copy there would be of no use; nothing was built"
        )
    call.stores.append((shm, verdict))
    return shm


def _find(call: Warming, store: Store) -> None:
    """What is wanted: from the interpreter, the modules, what is installed, files, the command."""
    from pyhugetext.cli import recording

    for file in call.files:
        _find_file(call, file)
    with _filler(store) if call.used else recording.recorder() as recorder:
        library = library_for(call.command, call.environ, call.say) if call.command else ""
        # A module's process holds the interpreter too. Programs are no business of Python's.
        alone = not (call.files or library) or call.all_installed
        for module in call.modules or [""] * alone:
            call.progress.begin(f"importing {module}" if module else "starting the interpreter")
            try:
                found = recording.import_module(recorder, module)
                call.present.update(dict.fromkeys([] if call.used else found))
            except Failure as failure:
                call.fail(str(failure))
        call.progress.stop()
        if call.command:
            _run(call, recorder, library)
        call.wanted.update(dict.fromkeys(recorder.objects()))
    if call.all_installed:
        _find_installed(call)


def _filler(store: Store) -> AbstractContextManager[Recorder]:
    """What has the store filled by the programs that run."""
    from pyhugetext.cli import recording

    backing = "shm" if store.kind == "shm" else "store"
    auto = stores.settings().backing == "auto"
    with stores.told(store):
        return nullcontext(recording.Filler(store, "auto" if auto else backing))


def library_for(
    command: Sequence[str], environ: Mapping[str, str], say: Callable[[str], None]
) -> str:
    """The preload library, where a command is one that needs it: no Python, which has the hook."""
    from pyhugetext.programs import looking, preload

    try:
        file = looking.find(command[0], environ)
        library = preload.path()
    except (looking.NotStartable, preload.Missing):  # the first is told when it is started
        return ""
    program = looking.look(file, environ, library)
    if program.python:
        return ""
    if program.why_not:
        say(f"{program.path} itself cannot be covered: {program.why_not}")
    return library


def _run(call: Warming, recorder: Recorder, library: str) -> None:
    from pyhugetext.children.endings import ending
    from pyhugetext.cli import recording

    before = len(recorder.objects())
    try:
        if call.silent:
            status = recording.run_silently(recorder, call.command, library)
        else:
            status, call.interrupted = recording.run_command(
                recorder, call.command, call.quiet, library
            )
    except Failure as failure:
        return call.fail(str(failure))
    if status and not call.interrupted:
        call.fail(f"the command {ending(status)}")
    elif not status and len(recorder.objects()) == before:
        call.say("the command used nothing that is not in the list already")


def _find_file(call: Warming, file: str) -> None:
    """What a file and the libraries that it needs would take from a store."""
    from pyhugetext.cli import objects
    from pyhugetext.programs import looking, preload

    try:
        library = preload.path()
    except preload.Missing:
        library = ""
    if not os.path.isfile(file):
        return call.fail(f"{file}: {'it is no file' if os.path.lexists(file) else 'no such file'}")
    program = looking.look(file, call.environ, library)
    if program.why_not:
        where = f"{file}: " if program.path == file else f"{file} is run by {program.path}: "
        return call.fail(f"{where}{program.why_not}")
    find_program(call, program, objects.of(program, call.environ, stores.settings()))


def find_program(call: Warming, program: Program, found: Sequence[Object]) -> None:
    """What a program and its libraries would take from a store."""
    from pyhugetext.cli.recording import Wanted

    useful = [one for one in found if not one.excluded and not one.error]
    unread = [one for one in found[:1] if one.error]
    if unread:
        return call.fail(f"{program.path}: {unread[0].error}")
    if not useful:
        least = text.size(max(stores.settings().min_text, 1))
        many = " and its libraries have" if found[1:] else " has"
        return call.fail(
            f"{program.path}{many} less text than could lie on huge pages ({least} of an object, "
            "PYHUGETEXT_MIN_TEXT), or the settings exclude it; nothing was built"
        )
    ready = _ready_in_system(call)
    for one in useful:
        if one.bias is None:
            call.elsewhere.append(Wanted(one.path, 0))
        elif Wanted(one.path, one.bias) in ready:
            call.present[Wanted(one.path, one.bias)] = None
        else:
            call.wanted[Wanted(one.path, one.bias)] = None


def _ready_in_system(call: Warming) -> set[Wanted]:
    """What the system's store has, where that is not the one to fill."""
    from pyhugetext.cli.recording import Wanted
    from pyhugetext.store import places, upkeep

    if call.system:
        return set()
    try:
        entries, _ = upkeep.contents(places.system(stores.settings()))
    except OSError:  # there is none that is any good
        return set()
    whole = (one for one in entries if one.state == upkeep.READY and one.present == one.pages)
    return {Wanted(one.original, one.bias) for one in whole}


def _find_installed(call: Warming) -> None:
    from pyhugetext.cli import installed, objects
    from pyhugetext.cli.recording import Wanted

    found = stores.settings()
    call.progress.begin("looking through the installed distributions")
    for item in installed.shared_objects(installed.roots(), found.min_text):
        if not objects.fits(item.path, found):
            continue
        if item.bias is None:
            call.elsewhere.append(Wanted(item.path, 0))
        else:
            call.wanted[Wanted(item.path, item.bias)] = None
    call.progress.stop()


def _prepare(call: Warming, store: Store) -> None:
    from pyhugetext.store import warm

    lasting = [wanted for wanted in call.wanted if _comes_again(call, wanted)]
    for wanted in call.present:
        if wanted in call.wanted:
            continue
        if store.kind == "system":
            lasting.append(wanted)
        else:
            call.made.append(warm.Made(*wanted, stores.settings().system_store, warm.PRESENT))
    for wanted in dict.fromkeys(call.elsewhere):
        reason = _why_elsewhere(wanted.path)
        call.made.append(warm.Made(*wanted, store.root, warm.REFUSED, reason))
    sizes = [_file_size(wanted.path) for wanted in lasting]
    warmer = warm.Warmer(store, files=stores.settings().backing == "auto", used=call.used)
    call.progress.begin("", sum(sizes))
    for wanted, size in zip(lasting, sizes):
        call.progress.label(os.path.basename(wanted.path))
        call.made.append(warmer.prepare(wanted.path, wanted.bias))
        call.progress.advance(size)
    call.progress.stop()
    _tell_elsewhere(call)
    failed = [made for made in call.made if made.failed]
    if failed:
        rest = f" ({text.count(len(failed), 'object')} of {len(call.made)})" if failed[1:] else ""
        call.fail(f"store {store.root}: {failed[0].path} was not stored{rest}: {failed[0].reason}")


def _comes_again(call: Warming, wanted: Wanted) -> bool:
    """Whether an object is worth an entry; else it is put among those that are not."""
    from pyhugetext.cli import installed

    if stores.settings().building == "always" or installed.comes_again(*wanted):
        return True
    call.elsewhere.append(wanted)
    return False


def _why_elsewhere(path: str) -> str:
    from pyhugetext.cli import installed, objects

    if objects.is_moved_by_kernel(path):
        return "the kernel puts it at another address each time"
    asked = installed.lesser_alignment_of(path)
    why = f": it asks for an alignment of {text.size(asked)}" if asked else " on this file system"
    return f"the dynamic linker puts it at another address each time{why}"


def _tell_elsewhere(call: Warming) -> None:
    from pyhugetext.cli import objects
    from pyhugetext.process import linker

    paths = list(dict.fromkeys(wanted.path for wanted in call.elsewhere))
    programs = [path for path in paths if objects.is_moved_by_kernel(path)]
    others = [path for path in paths if path not in programs]
    if programs:
        call.fail(
            f"{_not_stored(programs)}: it is position-independent, so each start has it at "
            "another address; it gets private memory when it runs, its libraries do not need it"
        )
    if not others:
        return
    help_ = linker.why_not_honoured()
    help_ = (
        f"nothing helps here, for {help_}" if help_ else "pyhugetext image has such files aligned"
    )
    call.fail(
        f"{_not_stored(others)}: each process has it at another address, and what was built "
        f"for one would not be used; {help_}"
    )


def _not_stored(paths: list[str]) -> str:
    return f"{paths[0]} was not stored" + (f", nor {len(paths) - 1} more" if paths[1:] else "")


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
