"""An application of Celery whose broker is the current directory."""

from __future__ import annotations

import os

import application
from celery import Celery

HERE = os.getcwd()
for name in ("queue", "control", "results"):
    os.makedirs(name, exist_ok=True)
app = Celery("celery_tasks", broker="filesystem://", backend=f"file://{HERE}/results")
app.conf.broker_transport_options = {
    "data_folder_in": f"{HERE}/queue",
    "data_folder_out": f"{HERE}/queue",
    "control_folder": f"{HERE}/control",
    "polling_interval": 0.05,
}
app.conf.broker_connection_retry_on_startup = True


@app.task(name="call")
def call(path: str) -> str:
    return application.answer(path).decode()
