"""Celery's worker with forked processes, over a broker made of files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from support.ground import LIMIT, Ground
from support.servers import Kind, Outcome, Server, same_from_store, same_while_made

pytest.importorskip("celery", reason="celery is not installed")

TASKS = """
    import time
    import application
    from celery import Celery

    app = Celery("tasks", broker="filesystem://", backend="file://PLACE/results")
    app.conf.broker_transport_options = {
        "data_folder_in": "PLACE/queue", "data_folder_out": "PLACE/queue",
        "control_folder": "PLACE/control",
    }
    app.conf.broker_connection_retry_on_startup = True

    @app.task
    def call(name):
        return getattr(application, name)()
"""
# Sends a task as many times as it is told to, and prints what came back.
CLIENT = """
    import sys
    from tasks import call

    name, times = sys.argv[1:]
    if name == "told":
        name = "told_slowly"
    sent = [call.delay(name) for _ in range(int(times))]
    for one in sent:
        print(one.get(timeout=60))
"""
