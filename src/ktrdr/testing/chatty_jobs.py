"""A job body for tests of logs: whatever its specification says, it talks until it is stopped."""

from __future__ import annotations

import logging
import os
import time

from ktrdr.jobs.environment import Job, JobEnvironment
from ktrdr.operations.progress import Progress
from ktrdr.protocol.specs import JobSpec

__all__ = ["perform"]


def perform(spec: JobSpec, env: JobEnvironment) -> Job:
    """Prints and logs a numbered line every 20 ms, and at first the tokens in its environment."""
    del spec, env
    token = os.environ.get("KTRDR_API_TOKEN")
    print(f"printed: {token}")  # noqa: T201 (into the log)
    logging.getLogger("ktrdr.chatty").warning("logged: %s", token)
    for name, value in os.environ.items():
        if name.startswith("KTRDR_") and name.endswith("TOKEN"):
            print(f"{name}: {value}")  # noqa: T201
    number = 0
    while True:
        number += 1
        print(f"line {number} é")  # noqa: T201
        logging.getLogger("ktrdr.chatty").info("logged %d", number)
        time.sleep(0.02)
        yield Progress(1, 2, f"line {number}")
