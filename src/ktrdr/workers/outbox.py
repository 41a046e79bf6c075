"""Deliveries that the backend has not acknowledged yet, one file each; they outlive the worker's process."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from pydantic import ValidationError

from ktrdr.protocol.messages import DeliverRequest

__all__ = ["Outbox", "entry_key"]

_log = logging.getLogger(__name__)


def entry_key(delivery: DeliverRequest) -> str:
    """How the backend names an entry when it acknowledges it."""
    return f"{delivery.operation_id}:{delivery.attempt}"


class Outbox:
    """A folder of undelivered results.

    Laws
    ----
    - When ``add`` returns, the entry is on the disk and survives a power cut.
    - ``entries`` are oldest first. A file that cannot be read is set aside under another name, never deleted.
    - ``remove`` and ``set_aside`` of an absent entry are no errors.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for torn in folder.glob(".part-*"):
            torn.unlink(missing_ok=True)

    def add(self, delivery: DeliverRequest) -> None:
        """Store an entry, replacing an earlier one of the same attempt."""
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=".part-")
        with os.fdopen(handle, "w") as file:
            file.write(delivery.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._file(entry_key(delivery)))
        self._sync()

    def remove(self, key: str) -> None:
        """Forget an acknowledged entry."""
        self._file(key).unlink(missing_ok=True)

    def set_aside(self, key: str) -> None:
        """Keep an entry that the backend will never take, out of the way, for a person to look at."""
        file = self._file(key)
        if file.exists():
            os.replace(file, file.with_suffix(".refused"))

    def entries(self) -> list[DeliverRequest]:
        """What waits."""
        found: list[DeliverRequest] = []
        for file in sorted(self._folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns):
            try:
                found.append(DeliverRequest.model_validate_json(file.read_bytes()))
            except ValidationError:
                _log.warning("%s is not a delivery; it is kept as %s.unreadable.", file, file.name)
                os.replace(file, file.with_suffix(".unreadable"))
        return found

    def _file(self, key: str) -> Path:
        operation_id, _, attempt = key.rpartition(":")
        return self._folder / f"{Path(operation_id).name}.{int(attempt)}.json"

    def _sync(self) -> None:
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
