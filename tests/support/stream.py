"""Load: submissions one after the other."""

from __future__ import annotations

import threading
import time

from ktrdr.errors import KtrdrError
from support.chaos import Chaos

__all__ = ["Stream"]


class Stream:
    """Submits the same work again and again from a thread of its own; ``acknowledged`` collects what got a 202."""

    def __init__(self, chaos: Chaos, name: str, *, pause_s: float = 0.03) -> None:
        self.acknowledged: list[str] = []
        self._chaos, self._name, self._pause_s = chaos, name, pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)  # a failed test must not hang
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._chaos.parts.api() as api:
                    while not self._stop.wait(self._pause_s):
                        self.acknowledged.append(self._chaos.submit(api, self._name))
            except KtrdrError:  # the backend is being killed
                time.sleep(0.05)

    def stop(self) -> list[str]:
        self._stop.set()
        self._thread.join()
        return self.acknowledged
