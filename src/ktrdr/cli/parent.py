"""A part of a local fleet ends with the fleet, even when the supervisor is killed without a word."""

from __future__ import annotations

import os
import signal
import threading

__all__ = ["watch_parent"]


def watch_parent(handle: int) -> None:
    """Send this process SIGTERM when the pipe ``handle`` closes.

    The supervisor holds the other end and never writes; the kernel closes it however the supervisor dies.
    """

    def wait() -> None:
        while os.read(handle, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    os.set_inheritable(handle, False)
    threading.Thread(target=wait, name="parent-watch", daemon=True).start()
