"""A program that works with loky's processes, twice with new ones; see support.programs."""

from __future__ import annotations

import sys
import time

from support.programs import pause, say


def main() -> None:
    import application
    from loky import get_reusable_executor

    for fresh in (False, True):
        executor = get_reusable_executor(max_workers=2, reuse=not fresh)
        for line in executor.map(application_work, range(4)):
            print(line)
        told: dict[str, str] = {}
        while len(told) < 2:
            told.update(executor.map(application_told, range(4)))
        say(told.values())
        pause()
    executor.shutdown(wait=True)
    print(application.work())


def application_work(_: int) -> str:
    import application

    return application.work()


def application_told(_: int) -> tuple[str, str]:
    import os

    import application

    time.sleep(0.1)  # the other one gets the next
    return str(os.getpid()), application.told()


if __name__ == "__main__":
    main()
    sys.exit(3)
