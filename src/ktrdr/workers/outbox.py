"""Deliveries that the backend has not acknowledged yet, one file each; they outlive the worker's process."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path

from pydantic import ValidationError

from ktrdr.private import private_folder
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
    - When ``add`` returns, the entry is on the disk and survives a power cut. Where the disk does not take it, it
      is kept in memory and that is logged: the result can still be delivered while this process lives.
    - ``entries`` are oldest first, those in memory last. A file that cannot be read is set aside under another
      name, never deleted.
    - ``remove`` and ``set_aside`` of an absent entry are no errors.
    - Safe for several threads.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unsaved: dict[str, DeliverRequest] = {}
        private_folder(folder)
        for torn in folder.glob(".part-*"):
            torn.unlink(missing_ok=True)

    def add(self, delivery: DeliverRequest) -> None:
        """Store an entry, replacing an earlier one of the same attempt."""
        key = entry_key(delivery)
        try:
            self._save(key, delivery)
        except OSError as error:
            _log.error(
                "The result of %s cannot be written to %s and is in memory only: %s", key, self._folder, error
            )
            self._unsaved[key] = delivery
        else:
            self._unsaved.pop(key, None)

    def _save(self, key: str, delivery: DeliverRequest) -> None:
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=".part-")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(delivery.model_dump_json())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._file(key))
        finally:
            Path(temporary).unlink(missing_ok=True)
        self._sync()

    def remove(self, key: str) -> None:
        """Forget an acknowledged entry."""
        self._unsaved.pop(key, None)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._file(key).unlink()

    def set_aside(self, key: str) -> None:
        """Keep an entry that the backend will never take, out of the way, for a person to look at."""
        self._unsaved.pop(key, None)
        self._move(self._file(key), ".refused")

    def entries(self) -> list[DeliverRequest]:
        """What waits."""
        found: list[DeliverRequest] = []
        for _, file in sorted((_changed_at(file), file) for file in self._folder.glob("*.json")):
            try:
                found.append(DeliverRequest.model_validate_json(file.read_bytes()))
            except FileNotFoundError:
                continue  # acknowledged this very moment
            except ValidationError:
                _log.warning("%s is not a delivery; it is kept as %s.unreadable.", file, file.name)
                self._move(file, ".unreadable")
        return [*found, *self._unsaved.copy().values()]

    def _move(self, file: Path, suffix: str) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.replace(file, file.with_suffix(suffix))

    def _file(self, key: str) -> Path:
        operation_id, _, attempt = key.rpartition(":")
        return self._folder / f"{Path(operation_id).name}.{int(attempt)}.json"

    def _sync(self) -> None:
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _changed_at(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:  # acknowledged this very moment
        return 0
