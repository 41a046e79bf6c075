"""The progress bridge: what a job's process says of itself, through shared memory, to whoever serves it over HTTP.

One memory-mapped file holds the newest progress and the cancel flag; a file beside it collects metrics records.
Neither side ever waits for the other, and either may be killed at any instant.

Layout of the file (native byte order, both sides run on one machine)::

    0     magic, 8 bytes
    8     sequence: number of snapshots published; slot ``sequence % 2`` holds the newest
    16    cancel flag, written by the reader's side
    24    items done: the newest, newer than the snapshot's
    64    slot 0, slot 1: length, CRC-32, JSON of items_done, items_total, message, context

A snapshot is written into the slot that is not the newest, then ``sequence`` moves: a reader takes a slot only if
``sequence`` is the same afterwards and the checksum holds. A writer killed in the middle of a snapshot leaves the
one before intact.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from zlib import crc32

from ktrdr.errors import InvalidInput, NotFound
from ktrdr.operations.jsontext import dump_ascii
from ktrdr.operations.metrics_log import MetricsReader, MetricsWriter
from ktrdr.operations.progress import Metric, Progress, Scalar
from ktrdr.private import private_folder

__all__ = ["PUBLISH_EVERY_S", "ProgressBridge"]

PUBLISH_EVERY_S = 0.05
"""How often message and context travel at most; the count of items travels with every update."""

_MAGIC = b"ktrBRDG1"
_SEQUENCE, _CANCEL, _DONE = 1, 2, 3  # in words of 8 bytes
_SLOTS = 64
_SLOT = 16 * 1024
_HEAD = 16  # length and checksum before the payload
_SIZE = _SLOTS + 2 * _SLOT
_MESSAGE_LENGTH = 500
_TRIES = 100


class ProgressBridge:
    """Both ends of a bridge: the job calls ``update``, ``append`` and ``cancelled``; its host the others.

    Laws
    ----
    - One writer process and any number of reader processes; nobody waits for anybody.
    - ``read`` gives a snapshot that was published, never a mixture of two; ``items_done`` is the newest one.
    - ``items_done`` is seen at once. ``message`` and ``context`` are published with the first update, when
      ``items_total`` changes, at most every ``PUBLISH_EVERY_S`` besides, and at ``flush`` or ``close``. A job that
      says something new right before it falls silent calls ``flush``.
    - What was written survives the death of the writer's process (not of the machine).

    Costs of ``update`` on one core: two stores and a look at the clock, 0.2-0.4 us; a published snapshot
    about 10 us, 20 times a second at most. ``benchmarks/bench_bridge.py`` measures them.
    """

    def __init__(
        self, path: Path, *, monotonic: Callable[[], float] = time.monotonic, create: bool = False
    ) -> None:
        self.path = path
        if create:
            _lay_out(path)
        try:
            with path.open("r+b") as file:
                self._map = mmap.mmap(file.fileno(), 0)
        except FileNotFoundError:
            raise NotFound("progress bridge", str(path)) from None
        except ValueError:  # an empty file cannot be mapped
            raise _not_a_bridge(path) from None
        if len(self._map) != _SIZE or self._map[: len(_MAGIC)] != _MAGIC:
            self._map.close()
            raise _not_a_bridge(path)
        self._words = memoryview(self._map).cast("q")
        self._monotonic = monotonic
        self._publish_at = float("-inf")
        self._total: int | None = None
        self._latest: Progress | None = None  # what no snapshot holds yet
        self._seen: Progress | None = None
        self._seen_at = 0
        metrics = path.with_name(path.name + ".metrics")
        self._metrics_writer = MetricsWriter(metrics)
        self._metrics_reader = MetricsReader(metrics)

    @classmethod
    def create(cls, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> Self:
        """A new, empty bridge; an older one at ``path`` is replaced, with its metrics."""
        return cls(path, monotonic=monotonic, create=True)

    @classmethod
    def open(cls, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> Self:
        """An existing bridge, from either side.

        Raises
        ------
        NotFound
            If there is no file.
        InvalidInput
            If the file is something else.
        """
        return cls(path, monotonic=monotonic)

    # --- the job's side -------------------------------------------------------------------------------------------

    def update(self, progress: Progress) -> None:
        """Say where the job stands."""
        self._words[_DONE] = progress.items_done
        self._latest = progress
        if progress.items_total != self._total or self._monotonic() >= self._publish_at:
            self.flush()

    def flush(self) -> None:
        """Publish the newest message and context now."""
        progress, self._latest = self._latest, None
        if progress is None:
            return
        self._total = progress.items_total
        payload = _payload(progress)
        sequence = self._words[_SEQUENCE] + 1
        start = _SLOTS + (sequence % 2) * _SLOT
        word = start // 8
        self._words[word] = len(payload)
        self._words[word + 1] = crc32(payload)
        self._map[start + _HEAD : start + _HEAD + len(payload)] = payload
        self._words[_DONE] = progress.items_done
        self._words[_SEQUENCE] = sequence
        self._publish_at = self._monotonic() + PUBLISH_EVERY_S

    def append(self, metric: Metric) -> None:
        """Add one record to the metrics log."""
        self._metrics_writer.append(metric)

    @property
    def cancelled(self) -> bool:
        """Whether the job has been asked to stop; it should do so within 250 ms."""
        return self._words[_CANCEL] != 0

    # --- the host's side ------------------------------------------------------------------------------------------

    def read(self) -> Progress | None:
        """The newest progress, or None before the first update.

        A reader that is overtaken again and again (a writer publishes 20 times a second, a reading takes
        microseconds) answers with what it saw last.
        """
        for _ in range(_TRIES):
            sequence = self._words[_SEQUENCE]
            if sequence == 0:
                return None
            if sequence != self._seen_at:
                snapshot = self._snapshot(sequence)
                if snapshot is None:
                    continue
                self._seen, self._seen_at = snapshot, sequence
            done = self._words[_DONE]
            if self._words[_SEQUENCE] == sequence and self._seen is not None:
                seen = self._seen
                return Progress(done, seen.items_total, seen.message, seen.context)
        return self._seen

    def metrics(self, cursor: int = 0, limit: int = 1_000) -> tuple[list[Mapping[str, Scalar]], int]:
        """At most ``limit`` records from number ``cursor`` on, and the cursor that continues after them."""
        return self._metrics_reader.read(cursor, limit)

    def request_cancel(self) -> None:
        """Ask the job to stop; it cannot be taken back."""
        self._words[_CANCEL] = 1

    # --- both -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Publish what is newest, if this side has written, and let the file go. Idempotent."""
        if self._map.closed:
            return
        self.flush()
        self._words.release()
        self._map.close()
        self._metrics_writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _snapshot(self, sequence: int) -> Progress | None:
        """The snapshot numbered ``sequence``; None if it was overwritten meanwhile."""
        start = _SLOTS + (sequence % 2) * _SLOT
        length, checksum = self._words[start // 8], self._words[start // 8 + 1]
        if not 0 < length <= _SLOT - _HEAD:
            return None
        payload = self._map[start + _HEAD : start + _HEAD + length]
        if self._words[_SEQUENCE] != sequence or crc32(payload) != checksum:
            return None
        done, total, message, context = json.loads(payload)
        return Progress(done, total, message, context)


def _payload(progress: Progress) -> bytes:
    message = progress.message[:_MESSAGE_LENGTH]
    fields = [int(progress.items_done), int(progress.items_total), message, progress.context]
    payload = dump_ascii(fields)
    if len(payload) > _SLOT - _HEAD:  # progress must not end a job: the context is what can be missed
        fields[3] = {"context_left_out": "larger than a snapshot"}
        payload = dump_ascii(fields)
    return payload


def _lay_out(path: Path) -> None:
    """Put an empty bridge at ``path`` at once, so that nobody opens half a one."""
    private_folder(path.parent)
    path.with_name(path.name + ".metrics").unlink(missing_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".bridge-")
    with os.fdopen(handle, "wb") as file:
        file.write(_MAGIC + bytes(_SIZE - len(_MAGIC)))
    os.replace(temporary, path)


def _not_a_bridge(path: Path) -> InvalidInput:
    return InvalidInput(f"{path} is not a progress bridge of this version of ktrdr.")
