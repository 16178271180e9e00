"""A program that works with a kernel as a notebook does: it runs cells, interrupts one, and starts the
kernel anew; see support.programs."""

from __future__ import annotations

import os
import sys
from typing import Any

from jupyter_client.manager import KernelManager

from support.programs import pause, say


def run(client: Any, code: str, interrupt: KernelManager | None = None) -> list[str]:
    """What a cell printed, or how it failed."""
    found = []
    waiting = [interrupt] if interrupt else []

    def output(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            found.append(content["text"])
            # Once: a line may come in two messages, and the kernel may not be running it any more.
            if waiting:
                waiting.pop().interrupt_kernel()
        elif message["msg_type"] == "error":
            found.append(content["ename"])

    client.execute_interactive(code, timeout=60, output_hook=output)
    return "".join(found).splitlines()


def main() -> None:
    manager = KernelManager(kernel_name="python3")
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    manager.start_kernel(env=environ)
    for again in (False, True):
        if again:
            manager.restart_kernel(env=environ)
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        print(run(client, "import application; print(application.work())"))
        print(run(client, "import time; print('now', flush=True); time.sleep(600)", manager))
        print(run(client, "print(application.work(), 1 / 0)"))
        say(run(client, "print(application.told())"))
        pause()
        client.stop_channels()
    manager.shutdown_kernel()
    print(manager.is_alive())


if __name__ == "__main__":
    main()
    sys.exit(3)
